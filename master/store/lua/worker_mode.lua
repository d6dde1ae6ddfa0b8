-- worker_mode: drain, cordon or uncordon a worker.
--
-- @include lib/base.lua
-- @flags   allow-oom
-- KEYS[1]  the set of all workers, "tenure:{workers}:all"
-- ARGV[1]  worker id
-- ARGV[2]  mode: active, cordoned or draining
-- Replies  OK or UNKNOWN
-- Events   mode, in the workers' own stream
-- Retry    safe
local worker_key = key('worker', ARGV[1])
local instance = redis.call('HGET', worker_key, 'instance')
if not instance then return 'UNKNOWN' end
redis.call('HSET', worker_key, 'mode', ARGV[2])
redis.call('XADD', key('events'), 'MAXLEN', '~', 10000, '*', 'worker', ARGV[1], 'event', 'mode',
  'instance', instance, 'mode', ARGV[2])
return 'OK'
