-- requeue: an operator gives ended tasks fresh budgets. FAILED or CANCELLED -> QUEUED; SUCCEEDED, too, if its result can't
-- be read any more. Attempt records and checkpoints stay, so the evidence is kept and the next run goes on where the last
-- one got to.
--
-- @include lib/base.lua lib/queue.lua lib/leave.lua
-- KEYS[1]  the shard's clock
-- ARGV…    task ids, at most 100
-- Replies  [[verdict, state], …]; ok, already (it is open), wrong_state (it has its result, or its search is cancelled) or unknown
-- Events   requeue
-- Retry    safe
local now = wall_ms()
local replies = {}

local function is_open(task)
  return task.state ~= 'FAILED' and task.state ~= 'CANCELLED' and task.state ~= 'SUCCEEDED'
end

for i, id in ipairs(ARGV) do
  local task = load_task(id)
  if not task then
    replies[i] = {'unknown', ''}
  elseif is_open(task) then
    replies[i] = {'already', task.state}
  elseif task.state == 'SUCCEEDED' and is_json(redis.call('GET', key('outcome', id)), '{') then
    replies[i] = {'wrong_state', task.state}
  elseif redis.call('HGET', key('search', task.search), 'status') == 'cancelled' then
    replies[i] = {'wrong_state', task.state}
  else
    leave(id, task)
    redis.call('DEL', key('outcome', id), key('retired', id))
    redis.call('HSET', key('task', id), 'attempts', 0, 'losses', 0, 'ooms', 0, 'ended_token', '')
    redis.call('HDEL', key('task', id), 'ended', 'rule_spent', 'rule_ooms')
    to_queue(id, task, 'requeue', now)
    replies[i] = {'ok', 'QUEUED'}
  end
end
return replies
