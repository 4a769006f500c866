-- Admits many requests in one round trip. Checks each request against its coupon's hash and seats.
-- ARGV: now in milliseconds, then one MessagePack list with coupon, user, request id, address for each request, all as
-- text, then one with scope, interval and burst of each rate limit.
-- Returns, as MessagePack, a list with verdict and detail for each request, and the partitions' progress as a flat list.
local now, requests, limits = ARGV[1], cmsgpack.unpack(ARGV[2]), cmsgpack.unpack(ARGV[3])
local now_ms = tonumber(now)
local now_us = now_ms * 1000
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

local function key_of(scope, burst, periods_ago)
  return string.format('gate:limit:%s:%.0f', scope, math.floor(now_us / burst) - periods_ago)
end

-- Charges a request to all limits, or to none: then returns the exceeded limit with the time until it has room.
-- tested_only: charges it to none in any case.
local function exceeded(user, address, tested_only)
  local charged = {}
  for i = 1, #limits, 3 do
    local scope, burst = limits[i], limits[i + 2]
    local name = scope == 'user' and user or scope == 'address' and address or 'all'
    local known = redis.call('HGET', key_of(scope, burst, 0), name) or redis.call('HGET', key_of(scope, burst, 1), name)
    local arrival = math.max(tonumber(known or '0'), now_us) + limits[i + 1]
    local wait = arrival - burst - now_us
    if wait > 0 then return string.format('%s %.0f', scope, wait) end
    charged[#charged + 1] = { key_of(scope, burst, 0), name, string.format('%.0f', arrival) }
  end
  for _, state in ipairs(tested_only and {} or charged) do redis.call('HSET', unpack(state)) end
end

local function judge(coupon, user, request, address)
  local first = redis.call('HGET', coupon.seats, user)
  if first and redis.call('ZSCORE', 'gate:unacknowledged', first) then
    redis.call('ZADD', 'gate:unacknowledged', 'GT', now, first) -- an append attempt: maintenance.release_expired must keep the seat
    return 'unacknowledged', first
  end
  local limit = exceeded(user, address)
  if limit then return 'rate_limited', limit end
  if first then return 'duplicate', first end
  if coupon.free <= 0 then return 'sold_out', '' end
  coupon.free = coupon.free - 1
  redis.call('HSET', coupon.seats, user, request)
  redis.call('ZADD', 'gate:unacknowledged', now, request)
  return 'admitted', request
end

for i = 1, #requests, 4 do
  local coupon = coupons[requests[i]] or read_coupon(requests[i])
  coupons[requests[i]] = coupon
  local verdict, detail = coupon.refusal, coupon.detail
  if not verdict then
    verdict, detail = judge(coupon, requests[i + 1], requests[i + 2], requests[i + 3])
  else
    local limit = exceeded(requests[i + 1], requests[i + 3], verdict == 'cold')
    if limit then verdict, detail = 'rate_limited', limit end
  end
  verdicts[#verdicts + 1] = verdict
  verdicts[#verdicts + 1] = detail
end
return cmsgpack.pack({ verdicts, redis.call('HGETALL', 'gate:progress') })
