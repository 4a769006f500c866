-- Publishes the next offset to decide. ARGV: partition and offset for each. A published offset never decreases.
for i = 1, #ARGV, 2 do
  local known = redis.call('HGET', 'gate:progress', ARGV[i])
  if not known or tonumber(known) < tonumber(ARGV[i + 1]) then redis.call('HSET', 'gate:progress', ARGV[i], ARGV[i + 1]) end
end
