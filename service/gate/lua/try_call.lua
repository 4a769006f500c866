-- Begins every script that reads keys which something else may have written.
-- As redis.call, but returns false where the key has another type than the command expects.
local function try_call(...)
  local reply = redis.pcall(...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if string.find(reply.err, 'WRONGTYPE', 1, true) then return false end
  return redis.call(...)
end

-- Returns whether a stored value is text that matches the pattern and is short enough for a number.
local function matches(text, pattern) return text and #text < 20 and string.find(text, pattern) end

