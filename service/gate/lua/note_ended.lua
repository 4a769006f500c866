-- Notes since when a coupon has ended.
-- ARGV: coupon, and 1 if the gate has an unacknowledged request for it, otherwise 0: then it has not ended.
-- Returns as text the coupon's version, when its end was noted and the present time, both in milliseconds, and '1' if it
-- had ended when the gate was filled for it, otherwise ''; or nothing.
local gate = 'gate:' .. ARGV[1]
local now = math.floor(read_clock() / 1000)
local capacity, version, closes, override, sold_out, ended_at, filled_ended =
  unpack(try_call('HMGET', gate, 'capacity', 'version', 'closes', 'override', 'sold_out', 'ended_at', 'filled_ended') or {})
if not matches(capacity, '^%d+$') then return end
if not has_ended(closes, override, sold_out, now) or ARGV[2] == '1' then
  if ended_at then redis.call('HDEL', gate, 'ended_at') end
  return
end
local now_text = string.format('%.0f', now)
if not matches(ended_at, '^%d+$') then
  redis.call('HSET', gate, 'ended_at', now_text)
  ended_at = now_text
end
return { version or '', ended_at, now_text, filled_ended or '' }
