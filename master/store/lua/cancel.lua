-- cancel: stop tasks. QUEUED or SCHEDULED -> CANCELLED at once; LEASED: requested, and the holder is told; it becomes
-- CANCELLED when the holder lets go or its lease ends.
--
-- @include lib/base.lua lib/queue.lua lib/leave.lua
-- @flags   allow-oom
-- KEYS[1]  the shard's clock
-- ARGV…    task ids, at most 100
-- Replies  [[verdict, state], …]; ok, cancel_requested, already (it is CANCELLED), wrong_state (it ended) or unknown
-- Events   cancel
-- Retry    safe
local now = wall_ms()
local replies = {}
for i, id in ipairs(ARGV) do
  local task = load_task(id)
  if not task then
    replies[i] = {'unknown', ''}
  elseif task.state == 'QUEUED' or task.state == 'SCHEDULED' then
    leave(id, task)
    to_end(id, task, 'cancel', 'CANCELLED', now)
    discard_checkpoints(id)
    replies[i] = {'ok', 'CANCELLED'}
  elseif task.state == 'LEASED' then
    if task.cancel ~= '1' then
      redis.call('HSET', key('task', id), 'cancel', '1')
      event(id, task.search, 'cancel', 'LEASED', task.worker, task.epoch)
    end
    replies[i] = {'cancel_requested', 'LEASED'}
  else
    replies[i] = {task.state == 'CANCELLED' and 'already' or 'wrong_state', task.state}
  end
end
return replies
