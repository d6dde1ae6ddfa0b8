-- Code that searches ship to their workers. Needs base.
--
-- code:<digest>        the archive, whole and of that digest
-- code-part:<digest>   what has come of one that is being uploaded
-- codes                digests of whole archives by wall time: when each was put, asked for, or no longer needed
-- code-tasks           digest -> how many tasks name it, whatever their state

local function code_kept(digest)
  return redis.call('EXISTS', key('code', digest)) == 1
end

-- Somebody needs it, or has just stopped needing it: it is kept a while from now.
local function touch_code(digest, now)
  redis.call('ZADD', key('codes'), int(now), digest)
end

local function task_names_code(digest)
  redis.call('HINCRBY', key('code-tasks'), digest, 1)
end

local function task_with_code_gone(digest, now)
  if redis.call('HINCRBY', key('code-tasks'), digest, -1) <= 0 then redis.call('HDEL', key('code-tasks'), digest) end
  if code_kept(digest) then touch_code(digest, now) end
end
