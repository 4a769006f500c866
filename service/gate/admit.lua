-- Admits many requests in one round trip; each is judged against its coupon's hash and set of seats.
-- ARGV: now in milliseconds, then coupon, user, request id for each request.
-- Returns a verdict and a detail for each request, then the partitions' progress as a flat list.
local now = tonumber(ARGV[1])
local verdicts = {}

local function judge(coupon, user, request)
  local gate = 'gate:' .. coupon
  local capacity, opens, closes, override, sold_out =
    unpack(redis.call('HMGET', gate, 'capacity', 'opens', 'closes', 'override', 'sold_out'))
  if not capacity then return 'cold', '' end
  if capacity == 'unknown' then return 'unknown_coupon', '' end
  if override == 'closed' or (closes ~= '' and now >= tonumber(closes)) then return 'closed', '' end
  if override == 'paused' then return 'paused', '' end
  if opens ~= '' and now < tonumber(opens) then return 'not_open', opens end
  local seats = gate .. ':seats'
  local first = redis.call('HGET', seats, user)
  if first then
    if not redis.call('ZSCORE', 'gate:unsettled', first) then return 'duplicate', first end
    redis.call('ZADD', 'gate:unsettled', now, first) -- tried again now: the sweep must not free it meanwhile
    return 'unsettled', first
  end
  if sold_out or redis.call('HLEN', seats) >= tonumber(capacity) then return 'sold_out', '' end
  redis.call('HSET', seats, user, request)
  redis.call('ZADD', 'gate:unsettled', now, request)
  return 'admitted', request
end

for i = 2, #ARGV, 3 do
  local verdict, detail = judge(ARGV[i], ARGV[i + 1], ARGV[i + 2])
  verdicts[#verdicts + 1] = verdict
  verdicts[#verdicts + 1] = detail
end
return { verdicts, redis.call('HGETALL', 'gate:progress') }
