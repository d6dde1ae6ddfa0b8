-- promote: SCHEDULED -> QUEUED for tasks whose time has come on the lease clock.
--
-- @include lib/base.lua lib/queue.lua lib/leave.lua
-- @flags   allow-oom
-- KEYS[1]  the shard's clock
-- ARGV[1]  the most to promote, at most 100
-- Replies  how many were promoted
-- Events   promote
-- Retry    safe
local now, clock = wall_ms(), lease_ms()
local due = redis.call('ZRANGEBYSCORE', key('scheduled'), '-inf', int(clock), 'LIMIT', 0, tonumber(ARGV[1]), 'WITHSCORES')
for n = 1, #due, 2 do
  local id, late = due[n], clock - tonumber(due[n + 1])
  local task = load_task(id)
  redis.call('ZREM', key('scheduled'), id)
  if task then to_queue(id, task, 'promote', now - late) else counter('orphans_dropped') end
end
return #due / 2
