-- Gives seats back, each only if it still is that request's.
-- ARGV: a moment in milliseconds, then coupon, user, request id for each; one tried since that moment is left alone.
local released = 0
for i = 2, #ARGV, 3 do
  local gate, user, request = 'gate:' .. ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local tried = redis.call('ZSCORE', 'gate:unacknowledged', request)
  if not tried or tonumber(tried) <= tonumber(ARGV[1]) then
    if redis.call('HGET', gate .. ':seats', user) == request then
      released = released + redis.call('HDEL', gate .. ':seats', user)
      redis.call('HDEL', gate .. ':offsets', user)
    end
    redis.call('ZREM', 'gate:unacknowledged', request)
  end
end
return released
