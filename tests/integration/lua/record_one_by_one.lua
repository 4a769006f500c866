-- Records that the broker has acknowledged requests, and their offsets. The first offset of a user is kept.
-- ARGV: one MessagePack list with coupon, user, request id, offset for each request, all as text.
local requests, acknowledged = cmsgpack.unpack(ARGV[1]), {}
for i = 1, #requests, 4 do
  redis.call('HSETNX', 'gate:' .. requests[i] .. ':offsets', requests[i + 1], requests[i + 3])
  acknowledged[#acknowledged + 1] = requests[i + 2]
end
redis.call('ZREM', 'gate:unacknowledged', unpack(acknowledged))
