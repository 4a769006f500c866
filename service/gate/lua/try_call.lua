-- Begins every script that reads keys which something else may have written.
-- As redis.call, but returns false where the key has another type than the command expects.
local function try_call(...)
  local reply = redis.pcall(...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if string.find(reply.err, 'WRONGTYPE', 1, true) then return false end
  return redis.call(...)
end

