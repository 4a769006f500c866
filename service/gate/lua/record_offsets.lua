-- Notes that the broker has acknowledged requests, and where they lie; of a user's places the first one counts.
-- ARGV: one MessagePack list with coupon, user, request id, offset for each request, all as text.
local noted, settled = cmsgpack.unpack(ARGV[1]), {}
for i = 1, #noted, 4 do
  redis.call('HSETNX', 'gate:' .. noted[i] .. ':offsets', noted[i + 1], noted[i + 3])
  settled[#settled + 1] = noted[i + 2]
end
redis.call('ZREM', 'gate:unacknowledged', unpack(settled))
