-- release: hand tasks back unfinished; burns nothing. LEASED -> QUEUED, at its old place, or CANCELLED if that was
-- requested. Drains, preemptions, refused pushes and acknowledged cancels come this way.
--
-- The lease may have run out before that could be said. While nobody was given the task since, the holder is readopted
-- first (lib/adopt.lua): QUEUED -> LEASED, and from there as above.
--
-- @include lib/base.lua lib/queue.lua lib/leave.lua lib/compute.lua lib/adopt.lua
-- @flags   allow-oom
-- KEYS[1]  the shard's clock
-- ARGV[1]  JSON [{id, token, worker, record, ran}]; `record` is JSON text, or '' for a lease that never reached its worker;
--          `ran`: the ms that the run took
-- Replies  [[verdict, state, [checkpoint URL to delete, …], ms run, lease], …]; OK, STALE or UNKNOWN_TASK; `ms run` ''
--          unless it was taken now; `lease` as in lib/leave.lua, before that, '' of an unknown task
-- Events   release, after readopt if it came late
-- Retry    safe: the same token gets the same answer
local now = wall_ms()
local replies = {}
for i, item in ipairs(cjson.decode(ARGV[1])) do
  local task = load_task(item.id)
  if not task then
    replies[i] = {'UNKNOWN_TASK', '', {}, '', ''}
  elseif holds(task, item.token, item.worker) or comes_late(task, item) then
    if task.state ~= 'LEASED' then task = readopt_to_end(item.id, task, item) end
    redis.call('HSET', key('task', item.id), 'ended_token', outcome_mark(item))
    local cancelled, facts = task.cancel == '1', lease_facts(task)
    local run = run_ms(task, item.ran, now)
    run = count_unfinished(item.id, task, cancelled and 'cancelled' or 'release', run, cancelled)
    leave(item.id, task)
    if item.record ~= '' then record(item.id, task, 'release', now, item.record) end
    counter('released')
    local urls = {}
    if cancelled then
      to_end(item.id, task, 'release', 'CANCELLED', now)
      urls = hand_over_checkpoints(item.id)
    else
      to_queue(item.id, task, 'release', now)
    end
    lease_ended(task.search)
    replies[i] = {'OK', cancelled and 'CANCELLED' or 'QUEUED', urls, int(run), facts}
  elseif task.ended_token == outcome_mark(item) then
    replies[i] = {'OK', task.state, task.state == 'CANCELLED' and handed_over(item.id) or {}, '', lease_facts(task)}
  else
    counter('stale_refused')
    count_refused(item.id, task, item, 'stale', now)
    replies[i] = {'STALE', task.state, {}, '', lease_facts(task)}
  end
end
return replies
