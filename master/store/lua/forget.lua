-- forget: retention. Deletes the oldest ended tasks of a search beyond an age or a count, with all their keys, and the
-- search itself once it is empty and was left alone for the same age.
--
-- @include lib/base.lua lib/queue.lua lib/leave.lua lib/code.lua
-- @flags   allow-oom
-- KEYS[1]  the shard's clock
-- ARGV[1]  search
-- ARGV[2]  the most ended tasks to keep for each end state
-- ARGV[3]  the greatest age in ms
-- ARGV[4]  the most to delete, at most 100
-- Replies  how many tasks were deleted
-- Events   forget; search (task id empty, state forgotten)
-- Retry    safe
local search, keep, age, budget = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local now = wall_ms()

local function forget(id, state)
  local task_key = key('task', id)
  local task = redis.call('HMGET', task_key, 'key', 'payload', 'class', 'code')
  redis.call('HDEL', key('keys', search), task[1])
  if redis.call('HINCRBY', key('payload-refs'), task[2], -1) <= 0 then
    redis.call('HDEL', key('payload-refs'), task[2])
    redis.call('DEL', key('payload', task[2]))
  end
  if redis.call('HINCRBY', key('class-tasks'), task[3], -1) <= 0 then
    redis.call('HDEL', key('class-tasks'), task[3])
    redis.call('HDEL', key('class-requirements'), task[3])
  end
  if task[4] then task_with_code_gone(task[4], now) end
  redis.call('ZREM', key('ended', search .. ':' .. state), id)
  redis.call('ZREM', key('members', search), id)
  discard_checkpoints(id)
  redis.call('DEL', task_key, key('outcome', id), key('attempts', id), key('retired', id))
  recount(search, state, '')
  redis.call('HINCRBY', key('search', search), 'forgotten', 1)
  event(id, search, 'forget', state)
end

local deleted = 0
for _, state in ipairs({'SUCCEEDED', 'FAILED', 'CANCELLED'}) do
  local ended = key('ended', search .. ':' .. state)
  local surplus = math.min(redis.call('ZCARD', ended) - keep, budget - deleted)
  local ids = surplus > 0 and redis.call('ZRANGE', ended, 0, surplus - 1) or {}
  for _, id in ipairs(ids) do forget(id, state) end
  deleted = deleted + #ids
  ids = {}
  if deleted < budget then
    ids = redis.call('ZRANGEBYSCORE', ended, '-inf', int(now - age), 'LIMIT', 0, budget - deleted)
  end
  for _, id in ipairs(ids) do forget(id, state) end
  deleted = deleted + #ids
end

local function forget_search()
  local search_key = key('search', search)
  local touched = 0
  for _, at in ipairs(redis.call('HMGET', search_key, 'created', 'changed', 'last_ended')) do
    touched = math.max(touched, tonumber(at or '0'))
  end
  if touched == 0 or now - touched <= age then return end
  local code = redis.call('HGET', search_key, 'code')
  if code and code ~= '' and code_kept(code) then touch_code(code, now) end
  redis.call('DEL', search_key)
  redis.call('ZREM', key('searches'), search)
  event('', search, 'search', 'forgotten')
end

if redis.call('EXISTS', key('members', search)) == 0 then forget_search() end
return deleted
