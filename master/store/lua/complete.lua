-- complete: take a success. LEASED, QUEUED or SCHEDULED -> SUCCEEDED. The first success of a task wins, whoever holds
-- the lease by then: the work is done, and doing it again would help nobody.
--
-- @include lib/base.lua lib/queue.lua lib/leave.lua
-- @flags   allow-oom
-- KEYS[1]  the shard's clock
-- ARGV[1]  JSON [{id, token, epoch, worker, result, record, fitness}]; `result` and `record` are JSON texts kept as they are,
--          `fitness` a number or absent
-- Replies  [[verdict, state, [checkpoint URL to delete, …]], …]; OK, DUPLICATE (another success, or an end, came first)
--          or UNKNOWN_TASK
-- Events   complete
-- Retry    safe: the same token gets the same answer
local function keep_best(search, id, fitness)
  local search_key = key('search', search)
  local best = redis.call('HGET', search_key, 'best_fitness')
  if not best or tonumber(best) < fitness then
    redis.call('HSET', search_key, 'best_fitness', string.format('%.17g', fitness), 'best_task', id)
  end
end

local function take(item, task, now)
  local id = item.id
  if not holds(task, item.token, item.worker) then counter('late_accepted') end
  leave(id, task)
  local was_leased = task.state == 'LEASED'
  task.worker = item.worker
  if item.epoch > 0 then task.epoch = int(item.epoch) end
  redis.call('SET', key('outcome', id), item.result)
  redis.call('HSET', key('task', id), 'ended_token', outcome_mark(item), 'worker', item.worker)
  record(id, task, 'success', now, item.record)
  to_end(id, task, 'complete', 'SUCCEEDED', now)
  if was_leased then lease_ended(task.search) end
  if item.fitness then keep_best(task.search, id, item.fitness) end
  return {'OK', 'SUCCEEDED', hand_over_checkpoints(id)}
end

local now = wall_ms()
local replies = {}
for i, item in ipairs(cjson.decode(ARGV[1])) do
  local task = load_task(item.id)
  if not task then
    replies[i] = {'UNKNOWN_TASK', '', {}}
  elseif task.state == 'SUCCEEDED' or task.state == 'FAILED' or task.state == 'CANCELLED' then
    local same = task.state == 'SUCCEEDED' and task.ended_token == outcome_mark(item)
    if not same then counter('duplicates') end
    replies[i] = {same and 'OK' or 'DUPLICATE', task.state, same and handed_over(item.id) or {}}
  else
    replies[i] = take(item, task, now)
  end
end
return replies
