-- How a task leaves the state it is in, and how it ends. Needs base and queue.

-- Put `task` (a table of its hash's fields) out of the index of its present state.
local function leave(id, task)
  local state = task.state
  if state == 'QUEUED' then
    dequeue(id, task.search, task.class)
  elseif state == 'SCHEDULED' then
    redis.call('ZREM', key('scheduled'), id)
  elseif state == 'LEASED' then
    redis.call('ZREM', key('leases'), id)
    redis.call('DEL', key('progress', id))
  else
    redis.call('ZREM', key('ended', task.search .. ':' .. state), id)
  end
end

-- The caller has left the old state's index; `search` may now be served again if its cap allows.
local function lease_ended(search)
  local most = tonumber(redis.call('HGET', key('search', search), 'max_leased') or '0')
  if most > 0 then offer(search) end
end

-- `since`: on the wall, from when on it can be taken.
local function to_queue(id, task, transition, since)
  recount(task.search, task.state, 'QUEUED')
  redis.call('HSET', key('task', id), 'state', 'QUEUED', 'token', '', 'queued', int(since))
  enqueue(id, task.search, task.class, tonumber(task.priority), tonumber(task.seq))
  event(id, task.search, transition, 'QUEUED', task.worker, task.epoch)
end

-- Not before `delay` ms from now on the lease clock.
local function to_schedule(id, task, transition, delay)
  recount(task.search, task.state, 'SCHEDULED')
  redis.call('HSET', key('task', id), 'state', 'SCHEDULED', 'token', '')
  redis.call('ZADD', key('scheduled'), int(lease_ms() + delay), id)
  event(id, task.search, transition, 'SCHEDULED', task.worker, task.epoch)
end

local function to_end(id, task, transition, state, now)
  recount(task.search, task.state, state)
  redis.call('HSET', key('task', id), 'state', state, 'token', '', 'ended', int(now))
  redis.call('HDEL', key('task', id), 'cancel', 'reaped_token')
  redis.call('ZADD', key('ended', task.search .. ':' .. state), int(now), id)
  redis.call('HSET', key('search', task.search), 'last_ended', int(now))
  event(id, task.search, transition, state, task.worker, task.epoch)
end

-- Forget all checkpoints of a task that needs none any more. Returns their URLs, for the caller to have them deleted.
local function drop_checkpoints(id)
  local urls = {}
  for _, text in ipairs(redis.call('LRANGE', key('checkpoints', id), 0, -1)) do
    urls[#urls + 1] = cjson.decode(text).url
  end
  if #urls > 0 then redis.call('DEL', key('checkpoints', id), key('retired', id)) end
  return urls
end

local HANDED_OVER_SECONDS = 3600

-- The same for an end that a worker reports: it is told the URLs, and told again should the answer have been lost.
local function hand_over_checkpoints(id)
  local urls = drop_checkpoints(id)
  for _, url in ipairs(urls) do redis.call('RPUSH', key('retired', id), url) end
  if #urls > 0 then redis.call('EXPIRE', key('retired', id), HANDED_OVER_SECONDS) end
  return urls
end

local function handed_over(id)
  return redis.call('LRANGE', key('retired', id), 0, -1)
end

-- The same where no worker is at the other end: any worker with a session is asked to delete them later.
local function discard_checkpoints(id)
  for _, url in ipairs(drop_checkpoints(id)) do redis.call('RPUSH', key('discarded'), url) end
end

local ATTEMPT_RECORDS_MAX = 50

-- The evidence: one record a lease. `inner` is JSON text that the master made.
local function record(id, task, outcome, now, inner)
  local list = key('attempts', id)
  redis.call('RPUSH', list, cjson.encode({task.epoch, task.worker, outcome, task.leased, int(now), inner or '{}'}))
  redis.call('LTRIM', list, -ATTEMPT_RECORDS_MAX, -1)
end

local FIELDS = {'state', 'search', 'class', 'priority', 'seq', 'epoch', 'token', 'worker', 'leased', 'attempts',
  'max_attempts', 'losses', 'max_losses', 'ooms', 'max_ooms', 'cancel', 'ended_token', 'reaped_token', 'legacy', 'trace',
  'kept', 'lost', 'worth'}

-- The task's fields by name, or nil.
local function load_task(id)
  local values = redis.call('HMGET', key('task', id), unpack(FIELDS))
  if not values[1] then return nil end
  local task = {}
  for i, name in ipairs(FIELDS) do task[name] = values[i] or '' end
  return task
end

-- The lease that `task` is under, or was last, as a reply says it, for logs and traces: [search, epoch, attempt, worker,
-- token ('' unless the lease lives), since when (ms), trace]. To be taken before anything is changed.
local function lease_facts(task)
  return {task.search, task.epoch, int((tonumber(task.attempts) or 0) + 1), task.worker, task.token, task.leased,
    task.trace}
end

-- Whether a write under `token` comes from the present holder. Without a token it is a legacy peer's, known by its id.
local function holds(task, token, worker)
  if task.state ~= 'LEASED' then return false end
  if token == '' then return task.worker == worker end
  return task.token == token
end

-- What a task remembers of the outcome taken last, so that the same one sent again gets the same answer.
local function outcome_mark(item)
  if item.token ~= '' then return item.token end
  return 'legacy:' .. item.worker
end

-- Exponential backoff; `random` in [0, 1) comes from the caller.
local function backoff_ms(policy, failures)
  local most = math.min(policy.max_ms, policy.base_ms * policy.multiplier ^ math.min(failures - 1, 64))
  if policy.jitter == 'none' then return math.floor(most) end
  if policy.jitter == 'equal' then return math.floor(most * (0.5 + 0.5 * policy.random)) end
  return math.floor(most * policy.random)
end

-- The worker that lost a task is passed over by the next claim, for a lease's time, where others can serve the task.
local function avoid_holder(id, task)
  redis.call('HSET', key('task', id), 'avoid', int(lease_ms()) .. ':' .. task.worker)
end

-- A run ended badly and its budget is charged: where does the task go? `exhausted`: no retry is left, or none can help.
local function after_failure(id, task, transition, now, delay, exhausted)
  if task.cancel == '1' then
    to_end(id, task, transition, 'CANCELLED', now)
    discard_checkpoints(id)
  elseif exhausted then
    to_end(id, task, transition, 'FAILED', now)
  elseif delay > 0 then
    to_schedule(id, task, transition, delay)
  else
    to_queue(id, task, transition, now)
  end
  lease_ended(task.search)
end
