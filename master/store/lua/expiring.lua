-- expiring: the leases that have the least time left. Reads only, and decides nothing.
--
-- @include lib/base.lua
-- @flags   no-writes
-- KEYS[1]  the shard's clock
-- ARGV[1]  the most to return
-- Replies  [leases in all, [task id, …]]
local leases = key('leases')
return {redis.call('ZCARD', leases), redis.call('ZRANGE', leases, 0, tonumber(ARGV[1]) - 1)}
