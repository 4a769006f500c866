-- Admits many requests in one round trip. Checks each request against its coupon's hash and seats.
-- ARGV: now in milliseconds, then one MessagePack list with coupon, user, request id for each request, all as text.
-- Returns, as MessagePack, a list with verdict and detail for each request, and the partitions' progress as a flat list.
local now, requests = ARGV[1], cmsgpack.unpack(ARGV[2])
local now_ms = tonumber(now)
local coupons, verdicts = {}, {}

-- Returns the refusal that applies to all users, or the number of free seats.
local function read_coupon(coupon)
  local gate = 'gate:' .. coupon
  local capacity, opens, closes, override, sold_out =
    unpack(redis.call('HMGET', gate, 'capacity', 'opens', 'closes', 'override', 'sold_out'))
  if not capacity then return { refusal = 'cold', detail = '' } end
  if capacity == 'unknown' then return { refusal = 'unknown_coupon', detail = '' } end
  if override == 'closed' or (closes ~= '' and now_ms >= tonumber(closes)) then return { refusal = 'closed', detail = '' } end
  if override == 'paused' then return { refusal = 'paused', detail = '' } end
  if opens ~= '' and now_ms < tonumber(opens) then return { refusal = 'not_open', detail = opens } end
  local seats = gate .. ':seats'
  return { seats = seats, free = sold_out and 0 or tonumber(capacity) - redis.call('HLEN', seats) }
end

local function judge(coupon, user, request)
  local first = redis.call('HGET', coupon.seats, user)
  if first then
    if not redis.call('ZSCORE', 'gate:unacknowledged', first) then return 'duplicate', first end
    redis.call('ZADD', 'gate:unacknowledged', 'GT', now, first) -- an append attempt: maintenance.release_expired must keep the seat
    return 'unacknowledged', first
  end
  if coupon.free <= 0 then return 'sold_out', '' end
  coupon.free = coupon.free - 1
  redis.call('HSET', coupon.seats, user, request)
  redis.call('ZADD', 'gate:unacknowledged', now, request)
  return 'admitted', request
end

for i = 1, #requests, 3 do
  local coupon = coupons[requests[i]] or read_coupon(requests[i])
  coupons[requests[i]] = coupon
  local verdict, detail = coupon.refusal, coupon.detail
  if not verdict then verdict, detail = judge(coupon, requests[i + 1], requests[i + 2]) end
  verdicts[#verdicts + 1] = verdict
  verdicts[#verdicts + 1] = detail
end
return cmsgpack.pack({ verdicts, redis.call('HGETALL', 'gate:progress') })
