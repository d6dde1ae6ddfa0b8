-- How a holder gets its lease (again) without a claim. Needs base, queue and leave.

-- The epoch never falls, so that the next claim's is above every epoch that a holder has shown.
local function adopt(id, task, holder, expiry, now)
  leave(id, task)
  local epoch = int(math.max(holder.epoch, tonumber(task.epoch)))
  redis.call('HSET', key('task', id), 'state', 'LEASED', 'token', holder.token, 'epoch', epoch,
    'worker', holder.worker, 'leased', int(now), 'legacy', '0')
  redis.call('HDEL', key('task', id), 'reaped_token', 'avoid')
  redis.call('ZADD', key('leases'), int(expiry), id)
  recount(task.search, task.state, 'LEASED')
  offer(task.search)
  counter('readopted')
  event(id, task.search, 'readopt', 'LEASED', holder.worker, epoch)
end
