-- leases: who holds what, a part at a time. Every lease that lives from the first call to the last is reported at least
-- once (ZSCAN's promise). Reads only.
--
-- @include lib/base.lua
-- @flags   no-writes
-- KEYS[1]  the shard's clock
-- ARGV[1]  cursor; 0 begins
-- Replies  [next cursor, 0 at the end; [[task id, token, worker, instance], …]]
local COUNT = 500

local page = redis.call('ZSCAN', key('leases'), ARGV[1], 'COUNT', COUNT)
local held = {}
for i = 1, #page[2], 2 do
  local task = redis.call('HMGET', key('task', page[2][i]), 'token', 'worker', 'instance')
  held[#held + 1] = {page[2][i], task[1] or '', task[2] or '', task[3] or ''}
end
return {page[1], held}
