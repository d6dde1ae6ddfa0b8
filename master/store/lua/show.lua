-- show: tasks as they are at one moment. Reads only.
--
-- @include lib/base.lua
-- @flags   no-writes
-- KEYS[1]  the shard's clock
-- ARGV[1]  1 with payload, attempt records; else 0
-- ARGV[2…] task ids, at most 100
-- Replies  for each id nil, or [task hash as a flat list, outcome JSON, progress JSON, newest checkpoint JSON, lease ms
--          left, ms until it is queued, requirements JSON, payload, [attempt record JSON, …]]; absent parts are ''
local full = ARGV[1] == '1'
local clock = lease_ms()
local replies = {}
for i = 2, #ARGV do
  local id = ARGV[i]
  local task = redis.call('HGETALL', key('task', id))
  if #task == 0 then
    replies[i - 1] = false
  else
    local fields = redis.call('HMGET', key('task', id), 'class', 'payload')
    local lease = redis.call('ZSCORE', key('leases'), id)
    local due = redis.call('ZSCORE', key('scheduled'), id)
    replies[i - 1] = {task, redis.call('GET', key('outcome', id)) or '', redis.call('GET', key('progress', id)) or '',
      redis.call('LINDEX', key('checkpoints', id), 0) or '', lease and int(tonumber(lease) - clock) or '',
      due and int(tonumber(due) - clock) or '', redis.call('HGET', key('class-requirements'), fields[1]) or '',
      full and redis.call('GET', key('payload', fields[2])) or '',
      full and redis.call('LRANGE', key('attempts', id), 0, -1) or {}}
  end
end
return replies
