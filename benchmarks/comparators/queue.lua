-- Adds a user to a coupon's waiting queue: a SortedSet, member = user, score = request time.
-- KEYS: the queue, the set of users that have the coupon, the coupon's quantity. ARGV: user, request time in milliseconds.
-- Returns 'queued', 'duplicate' or 'sold_out'.
if redis.call('SISMEMBER', KEYS[2], ARGV[1]) == 1 then return 'duplicate' end
local quantity = tonumber(redis.call('GET', KEYS[3]) or '0')
if redis.call('SCARD', KEYS[2]) + redis.call('ZCARD', KEYS[1]) >= quantity then
  if redis.call('ZSCORE', KEYS[1], ARGV[1]) then return 'duplicate' end
  return 'sold_out'
end
if redis.call('ZADD', KEYS[1], 'NX', ARGV[2], ARGV[1]) == 0 then return 'duplicate' end
return 'queued'
