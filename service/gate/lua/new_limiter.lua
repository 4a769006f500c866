-- Rate limits by the generic cell rate algorithm (GCRA), in whole microseconds. The state of a user, an address or all
-- callers is the theoretical arrival time (TAT) of the next request. A request is within the limit if it moves the TAT at
-- most the burst ahead of now.
-- The states that change in one period, as long as the burst, are in one hash. A TAT of the period before the last is
-- past and means nothing, so the hash expires then. So a call reads and writes all its states with at most four commands
-- for each limit, however many users it has.
-- Integers are exact up to 2^53, but tostring keeps 14 digits: store them with %.0f.
-- limits: scope, interval and burst for each, as a flat list. requests: as in admit.lua. Returns three functions: one that
-- charges a request, one that tests whether the limits have room for it, and one that writes the states that were charged.
local function new_limiter(limits, now, requests)
  -- Returns whose state it is, or nil: without an address nothing is limited by address.
  local function name_of(scope, user, address)
    if scope == 'user' then return user end
    if scope == 'all' then return scope end
    return address ~= '' and address or nil
  end

  -- One with several requests is named as often.
  local function names_of(scope)
    if scope == 'all' then return #requests > 0 and { scope } or {} end
    local names = {}
    for i = scope == 'user' and 2 or 4, #requests, 4 do
      for _, name in ipairs(requests[i]) do
        if name ~= '' then names[#names + 1] = name end
      end
    end
    return names
  end

  -- A key of another type is deleted: something else wrote it.
  local function read(key, names)
    local states = try_call('HMGET', key, unpack(names))
    if not states then redis.call('DEL', key) end
    return states or {}
  end

  -- A state that no script writes counts as none. One that is more than the burst ahead counts as a used-up burst.
  -- `arrivals` has the states that are ahead of now, `expires` whether the hash of this period has its expiry already.
  local function open(scope, interval, burst)
    local period = math.floor(now / burst)
    local function key_of(number) return string.format('gate:limit:%s:%.0f', scope, number) end
    local limit = { scope = scope, interval = interval, burst = burst, key = key_of(period), arrivals = {}, charged = {} }
    limit.expires_in_ms = math.ceil(((period + 2) * burst - now) / 1000)
    local names = names_of(scope)
    local current = #names > 0 and read(limit.key, names)
    local previous
    for i, name in ipairs(names) do
      local state = current[i]
      if not state then
        previous = previous or read(key_of(period - 1), names)
        state = previous[i]
      end
      local arrival = matches(state, '^%d+$') and tonumber(state)
      if arrival then limit.expires = limit.expires or current[i] end
      if arrival and arrival > now then limit.arrivals[name] = math.min(arrival, now + burst) end
    end
    return limit
  end

  local opened = {}
  for i = 1, #limits, 3 do opened[#opened + 1] = open(limits[i], limits[i + 1], limits[i + 2]) end

  -- Returns nil, or the exceeded limit's scope and the microseconds until it has room for a request.
  local function test(user, address)
    for _, limit in ipairs(opened) do
      local arrival = limit.arrivals[name_of(limit.scope, user, address)]
      local wait = arrival and arrival + limit.interval - limit.burst - now
      if wait and wait > 0 then return limit.scope, wait end
    end
  end

  -- Charges a request to every limit, or to none if it exceeds one. Returns what `test` returned.
  local function charge(user, address)
    local scope, wait = test(user, address)
    if scope then return scope, wait end
    for _, limit in ipairs(opened) do
      local name = name_of(limit.scope, user, address)
      if name then
        limit.arrivals[name], limit.charged[name] = (limit.arrivals[name] or now) + limit.interval, true
      end
    end
  end

  local function write()
    for _, limit in ipairs(opened) do
      local fields = {}
      for name in pairs(limit.charged) do
        fields[#fields + 1] = name
        fields[#fields + 1] = string.format('%.0f', limit.arrivals[name])
      end
      if #fields > 0 then
        redis.call('HSET', limit.key, unpack(fields))
        if not limit.expires then redis.call('PEXPIRE', limit.key, string.format('%.0f', limit.expires_in_ms)) end
      end
    end
  end

  return charge, test, write
end

