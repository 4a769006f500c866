-- Notes since when a coupon has ended: it is closed, by an operator or by its window, or sold out.
-- ARGV: coupon, and 1 if the gate has an unacknowledged request for it, otherwise 0: then it has not ended.
-- Returns the coupon's version, when its end was noted and the present time, both in milliseconds, as text; or nothing.
local gate = 'gate:' .. ARGV[1]
local now = math.floor(read_clock() / 1000)
local capacity, version, closes, override, sold_out, ended_at =
  unpack(try_call('HMGET', gate, 'capacity', 'version', 'closes', 'override', 'sold_out', 'ended_at') or {})
if not matches(capacity, '^%d+$') then return end
local has_ended = sold_out or override == 'closed' or (matches(closes, '^%d+$') and now >= tonumber(closes))
if not has_ended or ARGV[2] == '1' then
  if ended_at then redis.call('HDEL', gate, 'ended_at') end
  return
end
local now_text = string.format('%.0f', now)
if not matches(ended_at, '^%d+$') then
  redis.call('HSET', gate, 'ended_at', now_text)
  ended_at = now_text
end
return { version or '', ended_at, now_text }
