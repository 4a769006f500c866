-- Marks a coupon as nonexistent for a few seconds, unless the gate has data about it. ARGV: coupon, the mark, seconds.
local gate = 'gate:' .. ARGV[1]
if redis.call('HSETNX', gate, 'capacity', ARGV[2]) == 1 then redis.call('EXPIRE', gate, ARGV[3]) end
