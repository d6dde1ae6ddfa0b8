-- complete: take a success. LEASED, QUEUED or SCHEDULED -> SUCCEEDED. The first success of a task wins, whoever holds
-- the lease by then: the work is done, and doing it again would help nobody.
--
-- @include lib/base.lua lib/queue.lua lib/leave.lua lib/compute.lua lib/success.lua lib/orphans.lua
-- @flags   allow-oom
-- KEYS[1]  the shard's clock
-- ARGV[1]  JSON [{id, token, epoch, worker, result, record, fitness, origin, ran}]; `result` and `record` are JSON texts
--          kept as they are, `fitness` a number or absent, `origin` text or absent; `ran` the ms that the run took, absent
--          = the worker doesn't say
-- Replies  [[verdict, state, [checkpoint URL to delete, …], how, ms run, lease], …]; OK, DUPLICATE (another success, or an end,
--          came first) or UNKNOWN_TASK. `how` it was taken: ACCEPTED, or LATE from an outdated lease; `how` and `ms run`
--          are '' unless it was taken now; `lease` as in lib/leave.lua, before that, '' of an unknown task
-- Events   complete
-- Retry    safe: the same token gets the same answer
local function take(item, now)
  local id = item.id
  local task = load_task(id)
  if not task and item.origin then
    -- The store has lost the task. The result is for the one that was submitted again from the same origin, or waits.
    id = twin(item.origin)
    if id then
      task = load_task(id)
    else
      keep_success(item.origin, item, now)
    end
  end
  if not task then return {'UNKNOWN_TASK', '', {}, '', '', ''} end
  if task.state == 'SUCCEEDED' or task.state == 'FAILED' or task.state == 'CANCELLED' then
    local same = task.state == 'SUCCEEDED' and task.ended_token == outcome_mark(item)
    if same then return {'OK', task.state, handed_over(id), '', '', lease_facts(task)} end
    counter('duplicates')
    count_refused(id, task, item, 'duplicate', now)
    return {'DUPLICATE', task.state, {}, '', '', lease_facts(task)}
  end
  return take_success(id, item, task, now)
end

local now = wall_ms()
local replies = {}
for i, item in ipairs(cjson.decode(ARGV[1])) do replies[i] = take(item, now) end
return replies
