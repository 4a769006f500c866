-- Fills a cold gate.
-- ARGV: coupon, version, the key with its seats or '', the server's run id and the run id that the last sweep stored as
-- they were before the coupon was read or '', then the hash's fields and values. '' skips the check of that run id.
-- A gate that is filled is left unchanged: its capacity is a number. The gate stays cold if the hash with the seats has
-- expired, if a newer version was published meanwhile, or if the server was restarted or emptied meanwhile: then it may
-- have lost a newer version.
-- A coupon that has ended gets the field `filled_ended`: it is kept for a shorter time, because one request for each of
-- many old coupons would fill the memory.
local gate, version, building, run_id, swept_run_id = 'gate:' .. ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5]
if tonumber(try_call('HGET', gate, 'capacity')) then return 0 end
if version < (tonumber(try_call('HGET', gate, 'version')) or -1) then return 0 end
if building ~= '' and redis.call('EXISTS', building) == 0 then return 0 end
local present_run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
if run_id ~= '' and run_id ~= present_run_id then return 0 end
if swept_run_id ~= '' and swept_run_id ~= redis.call('GET', 'gate:run_id') then return 0 end
redis.call('DEL', gate, gate .. ':seats')
if building ~= '' then
  redis.call('RENAME', building, gate .. ':seats')
  redis.call('PERSIST', gate .. ':seats')
end
redis.call('HSET', gate, 'run_id', present_run_id, unpack(ARGV, 6))
local closes, override, sold_out = unpack(redis.call('HMGET', gate, 'closes', 'override', 'sold_out'))
if has_ended(closes, override, sold_out, math.floor(read_clock() / 1000)) then redis.call('HSET', gate, 'filled_ended', '1') end
return 1
