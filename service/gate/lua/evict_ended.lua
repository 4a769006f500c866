-- Evicts a coupon with all its keys at once, unless it has changed since its end was noted. Returns how many.
-- ARGV: coupon, version, and when its end was noted, as note_ended returned them.
local gate = 'gate:' .. ARGV[1]
local known = try_call('HMGET', gate, 'version', 'ended_at') or {}
if known[1] ~= ARGV[2] or known[2] ~= ARGV[3] then return 0 end
redis.call('UNLINK', gate, gate .. ':seats', gate .. ':offsets')
return 1
