-- How a holder gets its lease (again) without a claim. Needs base, queue, leave and compute.

-- The epoch never falls, so that the next claim's is above every epoch that a holder has shown. Without an instance the
-- holder's is that of the claim. `leased`: since when, on the wall.
local function adopt(id, task, holder, expiry, leased)
  leave(id, task)
  local epoch = int(math.max(holder.epoch, tonumber(task.epoch)))
  redis.call('HSET', key('task', id), 'state', 'LEASED', 'token', holder.token, 'epoch', epoch,
    'worker', holder.worker, 'leased', int(leased), 'legacy', '0')
  if holder.instance then redis.call('HSET', key('task', id), 'instance', holder.instance) end
  redis.call('HDEL', key('task', id), 'reaped_token', 'avoid')
  redis.call('ZADD', key('leases'), int(expiry), id)
  recount(task.search, task.state, 'LEASED')
  offer(task.search)
  counter('readopted')
  event(id, task.search, 'readopt', 'LEASED', holder.worker, epoch)
end

-- Whether `token` is of the lease that the reaper took last, and nobody was given the task since.
local function was_reaped(task, token)
  local open = task.state == 'QUEUED' or task.state == 'SCHEDULED'
  return open and token ~= '' and token == task.reaped_token
end

-- As if that lease had not run out: the loss is taken back, and its record, which is the last.
local function undo_expiry(id, task, holder, expiry)
  redis.call('HINCRBY', key('task', id), 'losses', -1)
  redis.call('RPOP', key('attempts', id))
  count_readopted(id, task)
  local same = {token = holder.token, worker = holder.worker, epoch = holder.epoch}
  adopt(id, task, same, expiry, tonumber(task.leased))
end

-- Whether `item` is the outcome of that lease. Its worker's report was on the way, or waited for the store, while the
-- lease ran out.
local function comes_late(task, item)
  return was_reaped(task, item.token) and task.worker == item.worker
end

-- The holder has its lease for as long as it takes to end it: the outcome counts once, and as what it is, and what the
-- holder says of the lease later gives nothing back. Returns the task as it is now.
local function readopt_to_end(id, task, item)
  undo_expiry(id, task, {token = item.token, worker = item.worker, epoch = 0}, lease_ms())
  return load_task(id)
end
