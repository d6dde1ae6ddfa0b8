-- How long ready tasks have waited. Needs base and queue.

-- Unix ms since when the oldest ready task of a class could have been taken; nil without one. Within one priority the
-- order is that of submission, so the head of each priority is its oldest, but for tasks that were handed back, which are
-- in front again. So the 2nd, 3rd, 5th, 9th, … in line are looked at, too.
local function oldest_takeable(search, class, now)
  local ready, from, oldest = ready_key(search, class), '-inf', nil
  local function look(id)
    local times = redis.call('HMGET', key('task', id), 'queued', 'submitted', 'leased')
    local since = times[2] and takeable_since(times[1], times[2], times[3]) or now
    oldest = math.min(oldest or since, since)
  end
  while true do
    local head = redis.call('ZRANGEBYSCORE', ready, from, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
    if not head[1] then break end
    look(head[1])
    from = int((math.floor(tonumber(head[2]) / BAND) + 1) * BAND)
  end
  local size, rank = redis.call('ZCARD', ready), 1
  while rank < size do
    look(redis.call('ZRANGE', ready, rank, rank)[1])
    rank = rank * 2
  end
  return oldest
end
