-- Tells the next offset to decide: ARGV holds partition and offset for each; what was told never goes back.
for i = 1, #ARGV, 2 do
  local told = redis.call('HGET', 'gate:progress', ARGV[i])
  if not told or tonumber(told) < tonumber(ARGV[i + 1]) then redis.call('HSET', 'gate:progress', ARGV[i], ARGV[i + 1]) end
end
