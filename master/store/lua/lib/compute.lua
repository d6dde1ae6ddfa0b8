-- Compute time: how long runs went on, and what came of it. Needs base and leave.
--
-- In a search's hash, whole ms that only grow:
--   useful_ms          of runs whose result was accepted
--   saved_ms:<cause>   checkpoint, late, readopted, shared
--   wasted_ms:<cause>  loss, failure, out_of_memory, release, cancelled, duplicate, stale
-- In a task's:
--   kept   "<epoch> <ms>": how long the run of that epoch had gone on when its last checkpoint was registered
--   lost   "<mark> <ms run> <ms wasted> <ms kept> <mark>": the lease that was lost last, as it was counted then. The first
--          mark is of its token; the second, of a legacy peer, of the worker, else '-'
--   worth  ms that its result took, until they were saved for an equal submission
--
-- The transition that ends a lease counts it, once: what its last checkpoint kept is saved, the rest useful or wasted. A
-- lost lease may turn out not to be: then what was counted as wasted is counted again as saved, late or readopted.

local function add_ms(search, field, ms)
  if ms > 0 then redis.call('HINCRBY', key('search', search), field, int(ms)) end
end

-- Since the grant, by the store's clock; or what the worker says (nil: nothing), if that is less. What it says includes
-- no waiting for a master.
local function run_ms(task, said, now)
  local span = math.max(0, now - (tonumber(task.leased) or now))
  return said and math.min(said, span) or span
end

local function lost_lease(task)
  if task.lost == '' then return nil end
  local token, run, wasted, kept, worker = string.match(task.lost, '^(%S+) (%d+) (%d+) (%d+) (%S+)$')
  if not token then return nil end
  return {token = token, run = tonumber(run), wasted = tonumber(wasted), kept = tonumber(kept), worker = worker}
end

-- Short: one field of more than 64 bytes would make a task's hash several times as large.
local function worker_mark(worker) return string.sub(redis.sha1hex(worker), 1, 12) end
local function token_mark(token) return string.sub(token, -16) end

local function remember_lost(id, lost)
  redis.call('HSET', key('task', id), 'lost', table.concat({lost.token, int(lost.run), int(lost.wasted), int(lost.kept),
    lost.worker}, ' '))
end

-- The lease of `task` is lost, as it is counted now.
local function lose(id, task, run, wasted, kept)
  remember_lost(id, {token = token_mark(task.token), run = run, wasted = wasted, kept = kept,
    worker = task.legacy == '1' and worker_mark(task.worker) or '-'})
end

-- Whether that lease is the one of this token; a legacy peer has none and is known by its id.
local function is_lease(lost, token, worker)
  if not lost then return false end
  if token == '' then return lost.worker == worker_mark(worker) end
  return lost.token == token_mark(token)
end

-- What is saved of this lease already: it was lost, and its holder came back.
local function saved_before(lost, token, worker)
  return is_lease(lost, token, worker) and lost.kept or 0
end

-- The lease of `task` ends without a result, `run` ms after it began. `dropped`: nobody will go on from its checkpoints.
-- Returns the ms run and those kept.
local function count_unfinished(id, task, cause, run, dropped)
  local before = saved_before(lost_lease(task), task.token, task.worker)
  local epoch, at = string.match(task.kept, '^(%d+) (%d+)$')
  run = math.max(run, before)
  local kept = before
  if epoch == task.epoch and not dropped then kept = math.max(before, math.min(tonumber(at), run)) end
  add_ms(task.search, 'saved_ms:checkpoint', kept - before)
  add_ms(task.search, 'wasted_ms:' .. cause, run - kept)
  if kept > before then
    redis.call('HSET', key('task', id), 'worth', int((tonumber(task.worth) or 0) + kept - before))
  end
  return run, kept
end

-- The lease of `task` was lost, `run` ms after it began.
local function count_lost(id, task, run)
  local cancelled = task.cancel == '1'
  local kept
  run, kept = count_unfinished(id, task, cancelled and 'cancelled' or 'loss', run, cancelled)
  lose(id, task, run, run - kept, kept)
end

-- The holder of the lease that was lost last has it again.
local function count_readopted(id, task)
  local lost = lost_lease(task)
  if not is_lease(lost, task.reaped_token, task.worker) then return end
  add_ms(task.search, 'saved_ms:readopted', lost.wasted)
  lost.wasted = 0
  remember_lost(id, lost)
end

-- No run is longer than its task is old.
local function age_ms(id, now)
  return math.max(0, now - tonumber(redis.call('HGET', key('task', id), 'submitted') or int(now)))
end

-- A success is taken from a lease that `task` was lost to. Whoever has it now works for nothing. Returns the ms that the
-- success ran and those of them that are saved already.
local function count_late(id, task, item, lost, now)
  local known = is_lease(lost, item.token, item.worker)
  local most = age_ms(id, now)
  if known then add_ms(task.search, 'saved_ms:late', lost.wasted) end
  if task.state == 'LEASED' then
    local run = run_ms(task, nil, now)
    local rest = math.max(0, run - saved_before(lost, task.token, task.worker))
    add_ms(task.search, 'wasted_ms:duplicate', rest)
    lose(id, task, run, 0, 0)
  end
  local before = known and lost.kept or 0
  return math.max(before, math.min(item.ran or (known and lost.run) or 0, most)), before
end

-- The success `item` is taken; `task` is as it was before. Returns the ms that it ran and what the task's result took.
local function count_success(id, task, item, held, now)
  local lost = lost_lease(task)
  local run, before
  if held then
    before = saved_before(lost, task.token, task.worker)
    run = math.max(before, run_ms(task, item.ran, now))
  else
    run, before = count_late(id, task, item, lost, now)
  end
  add_ms(task.search, 'useful_ms', run - before)
  return run, (tonumber(task.worth) or 0) + run - before
end

-- An outcome is refused because its lease was lost: what it ran on since. Sent again, that is nothing more.
local function count_refused(id, task, item, cause, now)
  if not item.ran then return end
  local lost = lost_lease(task)
  if not is_lease(lost, item.token, item.worker) then return end
  local run = math.min(item.ran, age_ms(id, now))
  if run <= lost.run then return end
  add_ms(task.search, 'wasted_ms:' .. cause, run - lost.run)
  lost.run = run
  remember_lost(id, lost)
end
