-- Records acknowledged requests, then admits many requests, in one round trip. Every coupon is read once, and all users
-- of a coupon are read and written with one command each.
-- ARGV: milliseconds by which a test has shifted the caller's clock, then three MessagePack lists:
--   the acknowledged requests, all as text: for each coupon the coupon, {user, …}, {offset, …}, {request id, …};
--   the requests to admit, all as text: for each coupon the coupon or '0' for one that does not exist, {user, …},
--   {request id, …}, {client address, …} or {} without addresses;
--   the rate limits: see new_limiter;
-- and 1 if the backlog is full, so that no seat may be taken, otherwise 0.
-- A request is charged to the limits once, before it gets a seat or a refusal. A `cold` one is only tested: it comes
-- again after the fill, and a caller whose limit has no room causes no fill. The repeat of an unacknowledged request is
-- neither charged nor tested: the first one had no answer.
-- Returns, as MessagePack, the requests that were not admitted as a list of {coupon's index, request's index, verdict,
-- detail}, the partitions' progress as a flat list, and the time in milliseconds. Indexes count from 1; request 0 stands
-- for all of the coupon, and precedes those that have another verdict.
local acknowledged, requests, limits = cmsgpack.unpack(ARGV[2]), cmsgpack.unpack(ARGV[3]), cmsgpack.unpack(ARGV[4])
local backlog_full = ARGV[5] == '1'
local now_us = read_clock()
local now_ms = math.floor(now_us / 1000) + tonumber(ARGV[1])
local now = string.format('%.0f', now_ms)
local charge, test_limits, write_limits = new_limiter(limits, now_us, requests)

local function is_time(text) return text == '' or matches(text, '^%-?%d+$') end

-- The first offset of a user is kept. Where the key for them has another type, the offsets are left out: that costs only
-- positions.
local function record_offsets(coupon, users, offsets, ids)
  local key, new, recorded = 'gate:' .. coupon .. ':offsets', {}, {}
  local known = try_call('HMGET', key, unpack(users))
  for i = 1, known and #users or 0 do
    if not known[i] and not recorded[users[i]] then
      recorded[users[i]] = true
      new[#new + 1] = users[i]
      new[#new + 1] = offsets[i]
    end
  end
  if #new > 0 then redis.call('HSET', key, unpack(new)) end
  redis.call('ZREM', 'gate:unacknowledged', unpack(ids))
end

-- Returns the refusal that applies to all users with its detail, or nil and the number of free seats.
-- A coupon with a value or a type that no script writes is deleted: it is cold, and filled again.
local function read_coupon(gate)
  if gate == 'gate:0' then return 'unknown_coupon', '' end
  local seats = gate .. ':seats'
  local capacity, opens, closes, override, sold_out =
    unpack(try_call('HMGET', gate, 'capacity', 'opens', 'closes', 'override', 'sold_out') or {})
  if capacity == false then return 'cold', '' end
  if capacity == 'unknown' then return 'unknown_coupon', '' end
  local taken = try_call('HLEN', seats)
  if not (taken and matches(capacity, '^%d+$') and is_time(opens) and is_time(closes)) then
    redis.call('DEL', gate, seats, gate .. ':offsets')
    return 'cold', ''
  end
  if override == 'closed' or (closes ~= '' and now_ms >= tonumber(closes)) then return 'closed', '' end
  if override == 'paused' then return 'paused', '' end
  if opens ~= '' and now_ms < tonumber(opens) then return 'not_open', opens end
  return nil, sold_out and 0 or tonumber(capacity) - taken
end

-- Takes seats in the order of the requests. `refuse` is called with each request that gets none, `within_limits` with
-- each that is not free of charge: it returns false for a request that it has refused.
local function take_seats(gate, free, users, ids, refuse, within_limits)
  local seats, attempts, taken = {}, {}, {}
  local held = redis.call('HMGET', gate .. ':seats', unpack(users))
  for i = 1, #users do
    local user = users[i]
    local first = held[i]
    if first and redis.call('ZSCORE', 'gate:unacknowledged', first) then
      redis.call('ZADD', 'gate:unacknowledged', 'GT', now, first) -- an append attempt: maintenance.release_expired must keep the seat
      refuse(i, 'unacknowledged', first)
    elseif taken[user] then
      refuse(i, 'unacknowledged', taken[user])
    elseif not within_limits(i) then -- refused
    elseif first then
      refuse(i, 'duplicate', first)
    elseif free <= 0 then
      refuse(i, 'sold_out', '')
    elseif backlog_full then
      refuse(i, 'backlog_full', '')
    else
      free, taken[user] = free - 1, ids[i]
      seats[#seats + 1] = user
      seats[#seats + 1] = ids[i]
      attempts[#attempts + 1] = now
      attempts[#attempts + 1] = ids[i]
    end
  end
  if #seats == 0 then return end
  redis.call('ZADD', 'gate:unacknowledged', unpack(attempts)) -- first: if it fails, no seat is without an attempt
  redis.call('HSET', gate .. ':seats', unpack(seats))
end

for i = 1, #acknowledged, 4 do
  record_offsets(acknowledged[i], acknowledged[i + 1], acknowledged[i + 2], acknowledged[i + 3])
end
local refused = {}
for i = 1, #requests, 4 do
  local gate, index, users, addresses = 'gate:' .. requests[i], (i + 3) / 4, requests[i + 1], requests[i + 3]
  local function refuse(request, verdict, detail) refused[#refused + 1] = { index, request, verdict, detail } end
  local function within_limits(request, apply)
    local scope, wait = (apply or charge)(users[request], addresses[request])
    if scope then refuse(request, 'rate_limited', string.format('%s %.0f', scope, wait)) end
    return not scope
  end
  local refusal, detail = read_coupon(gate)
  if refusal then
    refuse(0, refusal, detail)
    for request = 1, #users do within_limits(request, refusal == 'cold' and test_limits) end
  else
    take_seats(gate, detail, users, requests[i + 2], refuse, within_limits)
  end
end
write_limits()
return cmsgpack.pack({ refused, try_call('HGETALL', 'gate:progress') or {}, now_ms })
