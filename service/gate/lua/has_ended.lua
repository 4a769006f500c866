-- Returns whether a coupon has ended: it is closed, by an operator or by its window, or sold out. The arguments are fields
-- of its hash and the time in milliseconds.
local function has_ended(closes, override, sold_out, now_ms)
  return sold_out or override == 'closed' or (matches(closes, '^%d+$') and now_ms >= tonumber(closes))
end

