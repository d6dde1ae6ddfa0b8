-- worker_register: a worker process introduces itself. The newer registration of an id wins; a cordon outlives a
-- restart, a drain ends with the process that was drained.
--
-- @include lib/base.lua
-- @flags   allow-oom
-- KEYS[1]  the set of all workers, "tenure:{workers}:all"
-- ARGV[1]  JSON {id, instance, fields: {name: text, …}}
-- Replies  [OK, mode, instance that was replaced or '']
-- Events   register, in the workers' own stream
-- Retry    safe
local call = cjson.decode(ARGV[1])
local now = wall_ms()
local worker_key = key('worker', call.id)
local before = redis.call('HMGET', worker_key, 'instance', 'mode')
local replaced = before[1] and before[1] ~= call.instance and before[1] or ''
local mode = before[2] or 'active'
if mode == 'draining' and before[1] ~= call.instance then mode = 'active' end
-- What another process said of itself is not this one's.
if before[1] ~= call.instance then redis.call('DEL', worker_key) end
for name, value in pairs(call.fields) do redis.call('HSET', worker_key, name, value) end
if before[1] ~= call.instance or not before[1] then redis.call('HSET', worker_key, 'registered', int(now)) end
redis.call('HSET', worker_key, 'instance', call.instance, 'mode', mode, 'left', '0')
redis.call('ZADD', KEYS[1], int(now), call.id)
redis.call('XADD', key('events'), 'MAXLEN', '~', 10000, '*', 'worker', call.id, 'event', 'register',
  'instance', call.instance, 'mode', mode)
return {'OK', mode, replaced}
