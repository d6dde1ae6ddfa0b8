-- fail: a run ended badly. LEASED -> QUEUED, SCHEDULED (backoff), FAILED (a budget ran out or no retry can help) or
-- CANCELLED (that was requested).
--
-- The lease may have run out before the report of its end could come. While nobody was given the task since, the holder
-- is readopted first (lib/adopt.lua): QUEUED -> LEASED, and from there as above.
--
-- The master judges by the search's retry policy, whose id it names. Has the search another one by now, nothing is
-- written and the master is given that one: so a changed policy holds for the next failure, at every master.
--
-- @include lib/base.lua lib/queue.lua lib/leave.lua lib/compute.lua lib/adopt.lua
-- @flags   allow-oom
-- KEYS[1]  the shard's clock
-- ARGV[1]  JSON [{id, token, worker, kind, retryable, failure, record, policy: {base_ms, max_ms, multiplier, jitter,
--          random}, policy_id, rule, rule_budget, memory, ran}]; kind is failure (burns an attempt), loss or out_of_memory;
--          with a `rule` that rule's own budget is charged instead; `failure` and `record` are JSON texts kept as they are;
--          `memory`: from now on the task requires a slot with so many bytes; absent = no more than before;
--          `ran`: the ms that the run took, absent = nobody says
-- Replies  [[verdict, state, ms run, lease], …]; OK, STALE or UNKNOWN_TASK, or POLICY with 'id JSON' of the search's policy; `ms run`
--          '' unless it was taken now; `lease` as in lib/leave.lua, before that, '' of an unknown task or another policy
-- Events   fail, after readopt if it came late
-- Retry    safe: the same token gets the same OK
local BUDGETS = {failure = {'attempts', 'max_attempts'}, loss = {'losses', 'max_losses'},
  out_of_memory = {'ooms', 'max_ooms'}}

-- How much of the budget is spent now, and the budget.
local function charge(id, task, item)
  local task_key = key('task', id)
  if item.rule and item.rule ~= '' then
    local text = redis.call('HGET', task_key, 'rule_spent')
    local spent = text and cjson.decode(text) or {}
    spent[item.rule] = (spent[item.rule] or 0) + 1
    redis.call('HSET', task_key, 'rule_spent', cjson.encode(spent))
    -- Not of a budget: workers are told how often memory has run out, whoever counts it.
    if item.kind == 'out_of_memory' then redis.call('HINCRBY', task_key, 'rule_ooms', 1) end
    return spent[item.rule], item.rule_budget
  end
  local budget = BUDGETS[item.kind]
  -- Tasks of earlier versions have no max_ooms: max_attempts was the bound then.
  local most = task[budget[2]] ~= '' and task[budget[2]] or task.max_attempts
  return redis.call('HINCRBY', task_key, budget[1], 1), tonumber(most)
end

local CLASSES_MAX = 64

-- Move the task, which is in no ready index, to the class that requires so much memory beside what its own does. Should
-- that be one class too many (submit.lua's bound), it stays where it is.
local function require_memory(id, task, bytes)
  local classes, tasks = key('class-requirements'), key('class-tasks')
  local requirements = cjson.decode(redis.call('HGET', classes, task.class) or '{"gpus":0,"labels":{}}')
  if (requirements.memory_bytes or 0) >= tonumber(bytes) then return end
  requirements.memory_bytes = nil
  -- Not by cjson, which rounds large numbers.
  local text = string.sub(cjson.encode(requirements), 1, -2) .. ',"memory_bytes":' .. bytes .. '}'
  local class = string.sub(redis.sha1hex(task.class .. ' ' .. bytes), 1, 12)
  if redis.call('HEXISTS', classes, class) == 0 and redis.call('HLEN', classes) >= CLASSES_MAX then return end
  redis.call('HSETNX', classes, class, text)
  redis.call('HINCRBY', tasks, class, 1)
  if redis.call('HINCRBY', tasks, task.class, -1) <= 0 then
    redis.call('HDEL', tasks, task.class)
    redis.call('HDEL', classes, task.class)
  end
  redis.call('HSET', key('task', id), 'class', class)
  task.class = class
end

local function take(item, task, now)
  local facts = lease_facts(task)
  local spent, most = charge(item.id, task, item)
  redis.call('HSET', key('task', item.id), 'ended_token', outcome_mark(item))
  redis.call('SET', key('outcome', item.id), item.failure)
  local cancelled = task.cancel == '1'
  local run = run_ms(task, item.ran, now)
  run = count_unfinished(item.id, task, cancelled and 'cancelled' or item.kind, run, cancelled)
  leave(item.id, task)
  if item.memory then require_memory(item.id, task, item.memory) end
  record(item.id, task, item.kind, now, item.record)
  counter(item.kind)
  if item.kind == 'loss' then avoid_holder(item.id, task) end
  local exhausted = not item.retryable or spent >= most
  local delay = item.kind == 'loss' and 0 or backoff_ms(item.policy, spent)
  after_failure(item.id, task, 'fail', now, delay, exhausted)
  return {'OK', redis.call('HGET', key('task', item.id), 'state'), int(run), facts}
end

local now = wall_ms()
local replies = {}
for i, item in ipairs(cjson.decode(ARGV[1])) do
  local task = load_task(item.id)
  if not task then
    replies[i] = {'UNKNOWN_TASK', '', '', ''}
  elseif holds(task, item.token, item.worker) or comes_late(task, item) then
    -- Absent in searches of earlier versions.
    local policy_id = redis.call('HGET', key('search', task.search), 'retry_id') or ''
    if policy_id == (item.policy_id or '') then
      if task.state ~= 'LEASED' then task = readopt_to_end(item.id, task, item) end
      replies[i] = take(item, task, now)
    else
      replies[i] = {'POLICY', policy_id .. ' ' .. (redis.call('HGET', key('search', task.search), 'retry') or ''), '', ''}
    end
  elseif task.ended_token == outcome_mark(item) then
    replies[i] = {'OK', task.state, '', lease_facts(task)}
  else
    counter('stale_refused')
    count_refused(item.id, task, item, 'stale', now)
    replies[i] = {'STALE', task.state, '', lease_facts(task)}
  end
end
return replies
