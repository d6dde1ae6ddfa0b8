-- worker_heartbeat: workers are alive, with their figures.
--
-- @include lib/base.lua
-- @flags   allow-oom
-- KEYS[1]  the set of all workers, "tenure:{workers}:all"
-- ARGV[1]  JSON [{id, instance, fields: {name: text, …}}]; an empty instance is a legacy worker's
-- Replies  [[verdict, mode], …]; OK, UNKNOWN (it must register) or SUPERSEDED (a newer instance has the id)
-- Retry    safe
local now = wall_ms()
local replies = {}
for i, item in ipairs(cjson.decode(ARGV[1])) do
  local worker_key = key('worker', item.id)
  local known = redis.call('HMGET', worker_key, 'instance', 'mode')
  if not known[1] then
    replies[i] = {'UNKNOWN', ''}
  elseif known[1] ~= item.instance then
    replies[i] = {'SUPERSEDED', ''}
  else
    for name, value in pairs(item.fields) do redis.call('HSET', worker_key, name, value) end
    redis.call('HSET', worker_key, 'left', '0')
    redis.call('ZADD', KEYS[1], int(now), item.id)
    replies[i] = {'OK', known[2]}
  end
end
return replies
