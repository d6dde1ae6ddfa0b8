-- promote: SCHEDULED -> QUEUED for tasks whose time has come on the lease clock.
--
-- @include lib/base.lua lib/queue.lua lib/leave.lua
-- @flags   allow-oom
-- KEYS[1]  the shard's clock
-- ARGV[1]  the most to promote, at most 100
-- Replies  how many were promoted
-- Events   promote
-- Retry    safe
local due = redis.call('ZRANGEBYSCORE', key('scheduled'), '-inf', int(lease_ms()), 'LIMIT', 0, tonumber(ARGV[1]))
for _, id in ipairs(due) do
  local task = load_task(id)
  redis.call('ZREM', key('scheduled'), id)
  if task then to_queue(id, task, 'promote') else counter('orphans_dropped') end
end
return #due
