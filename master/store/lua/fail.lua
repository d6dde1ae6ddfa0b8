-- fail: a run ended badly. LEASED -> QUEUED, SCHEDULED (backoff), FAILED (a budget ran out or no retry can help) or
-- CANCELLED (that was requested).
--
-- @include lib/base.lua lib/queue.lua lib/leave.lua
-- @flags   allow-oom
-- KEYS[1]  the shard's clock
-- ARGV[1]  JSON [{id, token, worker, kind, retryable, failure, record, policy: {base_ms, max_ms, random}}]; kind is
--          failure (burns an attempt), loss (burns a loss) or out_of_memory (counted apart, bounded by max_attempts);
--          `failure` and `record` are JSON texts kept as they are
-- Replies  [[verdict, state], …]; OK, STALE or UNKNOWN_TASK
-- Events   fail
-- Retry    safe: the same token gets the same OK
local BUDGETS = {failure = {'attempts', 'max_attempts'}, loss = {'losses', 'max_losses'},
  out_of_memory = {'ooms', 'max_attempts'}}

local now = wall_ms()
local replies = {}
for i, item in ipairs(cjson.decode(ARGV[1])) do
  local task = load_task(item.id)
  if not task then
    replies[i] = {'UNKNOWN_TASK', ''}
  elseif holds(task, item.token, item.worker) then
    local budget = BUDGETS[item.kind]
    local spent = redis.call('HINCRBY', key('task', item.id), budget[1], 1)
    redis.call('HSET', key('task', item.id), 'ended_token', outcome_mark(item))
    redis.call('SET', key('outcome', item.id), item.failure)
    leave(item.id, task)
    record(item.id, task, item.kind, now, item.record)
    counter(item.kind)
    local exhausted = not item.retryable or spent >= tonumber(task[budget[2]])
    local delay = item.kind == 'loss' and 0 or backoff_ms(item.policy, spent)
    after_failure(item.id, task, 'fail', now, delay, exhausted)
    replies[i] = {'OK', redis.call('HGET', key('task', item.id), 'state')}
  elseif task.ended_token == outcome_mark(item) then
    replies[i] = {'OK', task.state}
  else
    counter('stale_refused')
    replies[i] = {'STALE', task.state}
  end
end
return replies
