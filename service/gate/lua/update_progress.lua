-- Publishes the next offset to decide. ARGV: partition and offset for each. A published offset never decreases; a value
-- that is not an offset is replaced.
for i = 1, #ARGV, 2 do
  local known = redis.call('HGET', 'gate:progress', ARGV[i])
  local offset = known and string.find(known, '^%d+$') and tonumber(known)
  if not offset or offset >= 2^63 or offset < tonumber(ARGV[i + 1]) then
    redis.call('HSET', 'gate:progress', ARGV[i], ARGV[i + 1])
  end
end
