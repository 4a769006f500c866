-- Notes for a few seconds that a coupon does not exist: ARGV holds coupon, the note, seconds; a gate that knows it stays.
local gate = 'gate:' .. ARGV[1]
if redis.call('HSETNX', gate, 'capacity', ARGV[2]) == 1 then redis.call('EXPIRE', gate, ARGV[3]) end
