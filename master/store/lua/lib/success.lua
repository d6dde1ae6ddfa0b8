-- How a success is taken. Needs base, queue, leave and compute.

local function keep_best(search, id, fitness)
  local search_key = key('search', search)
  local best = redis.call('HGET', search_key, 'best_fitness')
  if not best or tonumber(best) < fitness then
    redis.call('HSET', search_key, 'best_fitness', string.format('%.17g', fitness), 'best_task', id)
  end
end

-- `item` as complete.lua has it; the task is open. Returns complete.lua's reply.
local function take_success(id, item, task, now)
  local held, facts = holds(task, item.token, item.worker), lease_facts(task)
  if not held then counter('late_accepted') end
  local run, worth = count_success(id, task, item, held, now)
  leave(id, task)
  local was_leased = task.state == 'LEASED'
  task.worker = item.worker
  if item.epoch > 0 then task.epoch = int(item.epoch) end
  redis.call('SET', key('outcome', id), item.result)
  redis.call('HSET', key('task', id), 'ended_token', outcome_mark(item), 'worker', item.worker, 'worth', int(worth))
  record(id, task, 'success', now, item.record)
  to_end(id, task, 'complete', 'SUCCEEDED', now)
  if was_leased then lease_ended(task.search) end
  if item.fitness then keep_best(task.search, id, tonumber(item.fitness)) end
  return {'OK', 'SUCCEEDED', hand_over_checkpoints(id), held and 'ACCEPTED' or 'LATE', int(run), facts}
end
