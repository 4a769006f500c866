-- Rate limits by the generic cell rate algorithm (GCRA), in whole microseconds. The state of a limit is the theoretical
-- arrival time (TAT) of the next request, under `gate:limit:<scope>:<user or address>`. A request is within the limit
-- if it moves the TAT at most the burst ahead of now. The key expires with its TAT: a TAT in the past means nothing.
-- Integers are exact up to 2^53, but tostring keeps 14 digits: store them with %.0f.
-- limits: scope, interval and burst for each, as a flat list. requests: as in admit.lua. Returns two functions: one that
-- charges a request, and one that writes the states that were charged.
local function new_limiter(limits, now, requests)
  local keys, bursts, arrivals, changed = {}, {}, {}, {}

  -- Returns the key of a limit's state, or nothing: without an address nothing is limited by address.
  local function key_of(scope, user, address)
    if scope == 'all' then return 'gate:limit:all' end
    if scope == 'user' then return 'gate:limit:user:' .. user end
    return address and address ~= '' and 'gate:limit:address:' .. address
  end

  local function add_keys(users, addresses)
    for limit = 1, #limits, 3 do
      for i = 1, #users do
        local key = key_of(limits[limit], users[i], addresses[i])
        if key and not bursts[key] then
          keys[#keys + 1], bursts[key] = key, limits[limit + 2]
        end
      end
    end
  end

  -- Charges a request to every limit. Returns nil, or the exceeded limit's scope and the microseconds until it has room
  -- for a request: then no limit is charged.
  local function charge(user, address)
    for limit = 1, #limits, 3 do
      local key = key_of(limits[limit], user, address)
      local wait = key and arrivals[key] + limits[limit + 1] - limits[limit + 2] - now
      if wait and wait > 0 then return limits[limit], wait end
    end
    for limit = 1, #limits, 3 do
      local key = key_of(limits[limit], user, address)
      if key then
        arrivals[key], changed[key] = arrivals[key] + limits[limit + 1], true
      end
    end
  end

  local function write()
    for key in pairs(changed) do
      local milliseconds = math.ceil((arrivals[key] - now) / 1000)
      redis.call('SET', key, string.format('%.0f', arrivals[key]), 'PX', string.format('%.0f', milliseconds))
    end
  end

  -- All states are read with one command. One that no script writes counts as none. One that is more than the burst
  -- ahead, because the server's clock was set back, counts as a used-up burst from now on.
  for i = 1, #requests, 4 do add_keys(requests[i + 1], requests[i + 3]) end
  local states = #keys > 0 and redis.call('MGET', unpack(keys)) or {}
  for i, key in ipairs(keys) do
    local arrival = matches(states[i], '^%d+$') and tonumber(states[i]) or now
    arrivals[key] = math.min(math.max(arrival, now), now + bursts[key])
    changed[key] = arrival > arrivals[key] or nil
  end
  return charge, write
end

