-- Opens a cold gate: ARGV holds coupon, version, the key of its seats or '', then the hash's fields and values.
-- A gate that is open stays as it is; where the seats got lost or newer values were told meanwhile it stays cold.
local gate, version, building = 'gate:' .. ARGV[1], tonumber(ARGV[2]), ARGV[3]
local capacity = redis.call('HGET', gate, 'capacity')
if capacity and capacity ~= 'unknown' then return 0 end
if version < tonumber(redis.call('HGET', gate, 'version') or -1) then return 0 end
if building ~= '' and redis.call('EXISTS', building) == 0 then return 0 end
redis.call('DEL', gate, gate .. ':seats')
if building ~= '' then
  redis.call('RENAME', building, gate .. ':seats')
  redis.call('PERSIST', gate .. ':seats')
end
redis.call('HSET', gate, unpack(ARGV, 4))
return 1
