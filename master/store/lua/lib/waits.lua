-- How long ready tasks have waited. Needs base and queue.

-- Unix ms at which the oldest ready task of a class was submitted; nil without one. Within one priority the order is
-- that of submission, so the head of each priority is its oldest.
local function oldest_submitted(search, class, now)
  local ready, from, oldest = ready_key(search, class), '-inf', nil
  while true do
    local head = redis.call('ZRANGEBYSCORE', ready, from, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
    if not head[1] then return oldest end
    local submitted = tonumber(redis.call('HGET', key('task', head[1]), 'submitted') or int(now))
    oldest = math.min(oldest or submitted, submitted)
    from = int((math.floor(tonumber(head[2]) / BAND) + 1) * BAND)
  end
end
