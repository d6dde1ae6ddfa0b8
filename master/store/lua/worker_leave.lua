-- worker_leave: a worker said goodbye (mark it) or is long gone (forget it).
--
-- @include lib/base.lua
-- @flags   allow-oom
-- KEYS[1]  the set of all workers, "tenure:{workers}:all"
-- ARGV[1]  worker id, or '' to forget all that were not seen for ARGV[2] ms
-- ARGV[2]  instance, or the age in ms
-- Replies  how many were marked or forgotten
-- Retry    safe
if ARGV[1] ~= '' then
  local worker_key = key('worker', ARGV[1])
  if redis.call('HGET', worker_key, 'instance') ~= ARGV[2] then return 0 end
  redis.call('HSET', worker_key, 'left', '1')
  return 1
end
local old = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', int(wall_ms() - tonumber(ARGV[2])), 'LIMIT', 0, 100)
for _, id in ipairs(old) do
  redis.call('DEL', key('worker', id))
  redis.call('ZREM', KEYS[1], id)
end
return #old
