-- search: create a search or change its settings and status.
--
-- @include lib/base.lua lib/queue.lua lib/code.lua
-- @flags   allow-oom
-- KEYS[1]  the shard's clock
-- ARGV[1]  JSON {name, create: bool, settings: {priority?, weight?, max_leased?, format?, retry?,
--          retry_id?, evaluator?, code?}, status?}; `retry` is JSON text kept as it is, '' = the masters' own policy;
--          `code` is a digest, '' = none
-- Replies  OK, UNKNOWN_SEARCH (and create is false), FORMAT_IN_USE (the format can't change under existing tasks) or
--          UNKNOWN_CODE
-- Events   search (task id empty)
-- Retry    safe
local call = cjson.decode(ARGV[1])
local search_key = key('search', call.name)
local known = redis.call('HGET', search_key, 'format')
local priority_before = tonumber(redis.call('HGET', search_key, 'priority') or '0')
if not known and not call.create then return 'UNKNOWN_SEARCH' end
local settings = call.settings
if known and settings.format and settings.format ~= known
  and redis.call('EXISTS', key('members', call.name)) == 1 then
  return 'FORMAT_IN_USE'
end
if (settings.code or '') ~= '' and not code_kept(settings.code) then return 'UNKNOWN_CODE' end
local now = wall_ms()
if not known then
  redis.call('HSET', search_key, 'status', 'active', 'created', int(now), 'priority', '0', 'weight', '1',
    'max_leased', '0', 'format', 'graph', 'pass', '0')
  redis.call('ZADD', key('searches'), int(now), call.name)
end
if settings.code then
  local before = redis.call('HGET', search_key, 'code') or ''
  if before ~= '' and before ~= settings.code and code_kept(before) then touch_code(before, now) end
end
for name, value in pairs(settings) do redis.call('HSET', search_key, name, tostring(value)) end
if call.status then redis.call('HSET', search_key, 'status', call.status) end
redis.call('HSET', search_key, 'changed', int(now))
if settings.priority and tonumber(settings.priority) ~= priority_before then
  redis.call('HSET', search_key, 'pass', string.format('%.3f', present_pass(settings.priority)))
  offer_anew(call.name)
else
  offer(call.name)
end
event('', call.name, 'search', redis.call('HGET', search_key, 'status'))
return 'OK'
