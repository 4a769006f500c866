-- Tells what the database says of a coupon: ARGV holds coupon, version, capacity, quantity, then the hash's fields and values.
-- Older news is dropped. A gate that is cold keeps the version for a while, so that no older filling opens it.
-- Where there may be room for more, the gate is emptied: who was refused for want of seats may ask again. A version that
-- was left out may have been one with less room.
local gate, version, capacity, quantity = 'gate:' .. ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local known = tonumber(redis.call('HGET', gate, 'version') or -1)
if version < known then return end
local had = redis.call('HGET', gate, 'capacity')
local cold = not had or had == 'unknown'
local grew = not cold and (version > known + 1 or (version > known
  and (tonumber(had) < capacity or tonumber(redis.call('HGET', gate, 'quantity')) < quantity)))
if cold or grew then
  redis.call('DEL', gate, gate .. ':seats', gate .. ':offsets')
  redis.call('HSET', gate, 'version', version)
  redis.call('EXPIRE', gate, 60)
  return
end
if version > known then redis.call('HDEL', gate, 'sold_out') end
redis.call('HSET', gate, unpack(ARGV, 5))
