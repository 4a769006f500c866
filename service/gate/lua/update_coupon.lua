-- Publishes the database's values of a coupon.
-- ARGV: coupon, version, capacity, quantity, then the hash's fields and values.
-- An older version than the gate has is ignored. A cold gate keeps the version for a while, so that a fill that read
-- an older one does not fill it.
-- If capacity or quantity grew, or a version was skipped, the gate is emptied: users without a coupon can request again.
-- A skipped version may have had a lower capacity or quantity.
-- A gate whose capacity or quantity is not a number is cold: something else wrote to it.
-- A filled gate keeps its run_id, because its seats date from its fill.
local gate, version, capacity, quantity = 'gate:' .. ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local known = try_call('HMGET', gate, 'version', 'capacity', 'quantity') or {}
local known_version, known_capacity, known_quantity = tonumber(known[1]) or -1, tonumber(known[2]), tonumber(known[3])
if version < known_version then return end
local cold = not known_capacity or not known_quantity
local grew = not cold and (version > known_version + 1
  or (version > known_version and (known_capacity < capacity or known_quantity < quantity)))
if cold or grew then
  redis.call('DEL', gate, gate .. ':seats', gate .. ':offsets')
  redis.call('HSET', gate, 'version', version, 'run_id', string.match(redis.call('INFO', 'server'), 'run_id:(%x+)'))
  redis.call('EXPIRE', gate, 60)
  return
end
if version > known_version then redis.call('HDEL', gate, 'sold_out', 'ended_at', 'filled_ended') end
redis.call('HSET', gate, unpack(ARGV, 5))
