-- Returns the server's time in whole microseconds. All callers are judged by this one clock.
local function read_clock()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

