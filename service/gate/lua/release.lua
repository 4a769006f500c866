-- Releases seats, each only if it still is that request's. Returns how many. A key of another type has no seat.
-- ARGV: a time in milliseconds, then coupon, user, request id for each. A request with an append attempt after that
-- time keeps its seat.
local released = 0
for i = 2, #ARGV, 3 do
  local gate, user, request = 'gate:' .. ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local attempted = redis.call('ZSCORE', 'gate:unacknowledged', request)
  if not attempted or tonumber(attempted) <= tonumber(ARGV[1]) then
    if try_call('HGET', gate .. ':seats', user) == request then
      released = released + redis.call('HDEL', gate .. ':seats', user)
      try_call('HDEL', gate .. ':offsets', user)
    end
    redis.call('ZREM', 'gate:unacknowledged', request)
  end
end
return released
