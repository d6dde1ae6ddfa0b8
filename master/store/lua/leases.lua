-- leases: who holds what, a part at a time. Every lease that lives from the first call to the last is reported at least
-- once (ZSCAN's promise). Reads only.
--
-- @include lib/base.lua
-- @flags   no-writes
-- KEYS[1]  the shard's clock
-- ARGV[1]  cursor; 0 begins
-- ARGV[2…] only leases of these workers; none = of all
-- Replies  [next cursor, 0 at the end; [[task id, token, worker, instance], …]]
local COUNT = 500

local asked = nil
for i = 2, #ARGV do
  asked = asked or {}
  asked[ARGV[i]] = true
end

local page = redis.call('ZSCAN', key('leases'), ARGV[1], 'COUNT', COUNT)
local held = {}
for i = 1, #page[2], 2 do
  local task_key = key('task', page[2][i])
  -- Most leases are not of those who ask, and one field is cheaper than three.
  local worker = redis.call('HGET', task_key, 'worker') or ''
  if not asked or asked[worker] then
    local task = redis.call('HMGET', task_key, 'token', 'instance')
    held[#held + 1] = {page[2][i], task[1] or '', worker, task[2] or ''}
  end
end
return {page[1], held}
