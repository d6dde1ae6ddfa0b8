-- lease_counts: how many leases each worker holds, a part at a time. Every lease that lives from the first call to the last is
-- counted at least once (ZSCAN's promise). Reads only.
--
-- @include lib/base.lua
-- @flags   no-writes
-- KEYS[1]  the shard's clock
-- ARGV[1]  cursor; 0 begins
-- Replies  [next cursor, 0 at the end; [worker, leases, worker, leases, …]]
local COUNT = 500

local page = redis.call('ZSCAN', key('leases'), ARGV[1], 'COUNT', COUNT)
local counts = {}
for i = 1, #page[2], 2 do
  local worker = redis.call('HGET', key('task', page[2][i]), 'worker') or ''
  counts[worker] = (counts[worker] or 0) + 1
end
local reply = {}
for worker, count in pairs(counts) do
  reply[#reply + 1] = worker
  reply[#reply + 1] = count
end
return {page[1], reply}
