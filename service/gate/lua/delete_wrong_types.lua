-- Deletes keys that have another type than this service gives them. ARGV: key and type for each. Returns those keys.
local deleted = {}
for i = 1, #ARGV, 2 do
  local found = redis.call('TYPE', ARGV[i]).ok
  if found ~= 'none' and found ~= ARGV[i + 1] then
    redis.call('DEL', ARGV[i])
    deleted[#deleted + 1] = ARGV[i]
  end
end
return deleted
