-- expire: take back leases that ran out on the lease clock. LEASED -> QUEUED, FAILED (no losses left) or CANCELLED
-- (that was requested). Burns a loss.
--
-- A legacy worker can't renew lease by lease: it is believed alive while it heartbeats, so a lease of its own that ran
-- out is renewed here from the time it was last seen.
--
-- @include lib/base.lua lib/queue.lua lib/leave.lua lib/compute.lua
-- @flags   allow-oom
-- KEYS[1]  the shard's clock
-- ARGV[1]  the most to take, at most 100
-- ARGV[2]  lease TTL in ms
-- Replies  [[task id, state, worker, token, cause, lease], …] of those taken; cause is silent (nobody renewed it) or disconnected
--          (its session broke and the grace passed); lease as in lib/leave.lua
-- Events   expire
-- Retry    safe
local now, clock = wall_ms(), lease_ms()
local due = redis.call('ZRANGEBYSCORE', key('leases'), '-inf', int(clock), 'LIMIT', 0, tonumber(ARGV[1]), 'WITHSCORES')

local function seen_until(task)
  if task.legacy ~= '1' then return 0 end
  return tonumber(redis.call('ZSCORE', key('legacy-seen'), task.worker) or '0') + tonumber(ARGV[2])
end

-- Whether the lease ran out because it was cut, and when on the lease clock its holder was heard last.
local function last_heard(id, expiry)
  local cut_to, cut_at = string.match(redis.call('HGET', key('task', id), 'cut') or '', '^(%d+) (%d+)$')
  if cut_to and tonumber(cut_to) == expiry then return true, tonumber(cut_at) end
  return false, expiry - tonumber(ARGV[2])
end

local taken = {}
for n = 1, #due, 2 do
  local id, expiry = due[n], tonumber(due[n + 1])
  local task = load_task(id)
  local alive_until = task and seen_until(task) or 0
  if not task then
    -- Can't be by our own scripts; a lease without a task must not stop the reaper for ever.
    redis.call('ZREM', key('leases'), id)
    counter('orphans_dropped')
  elseif alive_until > clock then
    redis.call('ZADD', key('leases'), int(alive_until), id)
  else
    local facts = lease_facts(task)
    local spent = redis.call('HINCRBY', key('task', id), 'losses', 1)
    redis.call('HSET', key('task', id), 'reaped_token', task.token)
    local was_cut, heard = last_heard(id, expiry)
    count_lost(id, task, math.max(0, run_ms(task, nil, now) - math.max(0, clock - heard)))
    avoid_holder(id, task)
    leave(id, task)
    record(id, task, 'expired', now)
    counter('leases_expired')
    local exhausted = spent >= tonumber(task.max_losses)
    -- A dead letter tells what ended it, not an older failure that was got over.
    if exhausted then redis.call('DEL', key('outcome', id)) end
    after_failure(id, task, 'expire', now, 0, exhausted)
    taken[#taken + 1] = {id, redis.call('HGET', key('task', id), 'state'), task.worker, task.token,
      was_cut and 'disconnected' or 'silent', facts}
  end
end
return taken
