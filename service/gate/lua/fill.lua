-- Fills a cold gate.
-- ARGV: coupon, version, the temporary hash with its seats, the field that was written to that hash before the coupon was
-- read, the server's run id at that time, and the coupon's fields and values.
-- A gate that is filled is left unchanged: its capacity is a number. The gate stays cold if the temporary hash has expired
-- since, if a newer version was published meanwhile, or if the server was restarted or emptied meanwhile: then it may
-- have lost a newer version. An emptied server lacks the field.
-- A coupon that has ended gets the field `filled_ended`: it is kept for a shorter time, because one request for each of
-- many old coupons would fill the memory.
local gate, version, building, mark, run_id = 'gate:' .. ARGV[1], tonumber(ARGV[2]), unpack(ARGV, 3, 5)
if tonumber(try_call('HGET', gate, 'capacity')) then return 0 end
if version < (tonumber(try_call('HGET', gate, 'version')) or -1) then return 0 end
if redis.call('HEXISTS', building, mark) == 0 then return 0 end
local present_run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
if run_id ~= present_run_id then return 0 end
redis.call('DEL', gate, gate .. ':seats')
redis.call('RENAME', building, gate .. ':seats')
redis.call('PERSIST', gate .. ':seats')
redis.call('HDEL', gate .. ':seats', mark)
redis.call('HSET', gate, 'run_id', present_run_id, unpack(ARGV, 6))
local closes, override, sold_out = unpack(redis.call('HMGET', gate, 'closes', 'override', 'sold_out'))
if has_ended(closes, override, sold_out, math.floor(read_clock() / 1000)) then redis.call('HSET', gate, 'filled_ended', '1') end
return 1
