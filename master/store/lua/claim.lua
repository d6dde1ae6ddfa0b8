-- claim: give ready tasks to workers, each under a fresh lease. QUEUED -> LEASED.
--
-- @include lib/base.lua lib/queue.lua
-- @flags   allow-oom
-- KEYS[1]  the shard's clock
-- ARGV[1]  JSON {ttl, requests: [{worker, instance, legacy, classes: […], tokens: […]}]}; ttl in ms; a request is given
--          at most as many tasks as it brings tokens; 100 tokens in all
-- Replies  for each request [[task id, token, epoch, attempt, search, timeout, progress deadline, payload,
--          [checkpoint JSON, …]], …], newest first; empty when nothing is ready
-- Events   claim
-- Retry    the caller can't tell what an unanswered claim gave it: those leases run out by themselves
local call = cjson.decode(ARGV[1])
local now, clock = wall_ms(), lease_ms()
local expiry = int(clock + call.ttl)
local searches = {}

local function load_search(name)
  local s = searches[name]
  if not s then
    local v = redis.call('HMGET', key('search', name), 'weight', 'pass', 'max_leased', 'n:LEASED', 'priority')
    s = {stride = 100 / tonumber(v[1] or '1'), pass = tonumber(v[2] or '0'), most = tonumber(v[3] or '0'),
      leased = tonumber(v[4] or '0'), priority = tonumber(v[5] or '0'), taken = 0}
    searches[name] = s
  end
  return s
end

-- The class and search to serve next among `classes`, or nil.
local function next_search(classes)
  local best_class, best_search, best_score
  for _, class in ipairs(classes) do
    local head = redis.call('ZRANGE', key('fair', class), 0, 0, 'WITHSCORES')
    if head[1] and (not best_score or tonumber(head[2]) < best_score) then
      best_class, best_search, best_score = class, head[1], tonumber(head[2])
    end
  end
  return best_class, best_search, best_score
end

-- Charge the search for one task and put it to its new place in every class this worker can serve.
local function charge(name, s, classes)
  s.pass = s.pass + s.stride
  s.taken = s.taken + 1
  s.leased = s.leased + 1
  if s.most > 0 and s.leased >= s.most then
    for _, class in ipairs(redis.call('SMEMBERS', key('classes', name))) do
      redis.call('ZREM', key('fair', class), name)
    end
  else
    for _, class in ipairs(classes) do
      redis.call('ZADD', key('fair', class), 'XX', fair_score(s.priority, s.pass), name)
    end
  end
end

local function grant(id, name, request, token)
  local task_key = key('task', id)
  local t = redis.call('HMGET', task_key, 'epoch', 'attempts', 'timeout', 'progress', 'payload', 'checkpointed',
    'reaped_token')
  if not t[1] then
    -- Can't be by our own scripts; an id without a task must not stop the others' claims.
    counter('orphans_dropped')
    return nil
  end
  local epoch = tonumber(t[1]) + 1
  redis.call('HSET', task_key, 'state', 'LEASED', 'epoch', epoch, 'token', token, 'worker', request.worker,
    'leased', int(now), 'instance', request.instance, 'legacy', request.legacy and '1' or '0')
  if t[7] then redis.call('HDEL', task_key, 'reaped_token') end
  redis.call('ZADD', key('leases'), expiry, id)
  local checkpoints = {}
  if t[6] then
    checkpoints = redis.call('LRANGE', key('checkpoints', id), 0, -1)
    if #checkpoints > 0 then redis.call('HINCRBY', task_key, 'resumes', 1) end
  end
  event(id, name, 'claim', 'LEASED', request.worker, epoch)
  return {id, token, epoch, tonumber(t[2]) + 1, name, t[3], t[4], redis.call('GET', key('payload', t[5])), checkpoints}
end

local function serve(request)
  local grants = {}
  for _, token in ipairs(request.tokens) do
    local class, name, score = next_search(request.classes)
    if not class then break end
    local s = load_search(name)
    local ready = ready_key(name, class)
    local popped = redis.call('ZPOPMIN', ready)
    local granted = popped[1] and grant(popped[1], name, request, token)
    if granted then
      grants[#grants + 1] = granted
      s.pass = math.max(s.pass, score + s.priority * BAND)
      redis.call('HSET', KEYS[1], 'pass:' .. int(s.priority), string.format('%.3f', s.pass))
      charge(name, s, request.classes)
    end
    class_drained(name, class)
  end
  return grants
end

local replies = {}
for i, request in ipairs(call.requests) do replies[i] = serve(request) end

for name, s in pairs(searches) do
  if s.taken > 0 then
    local search_key = key('search', name)
    redis.call('HSET', search_key, 'pass', string.format('%.3f', s.pass))
    redis.call('HINCRBY', search_key, 'n:QUEUED', -s.taken)
    redis.call('HINCRBY', search_key, 'n:LEASED', s.taken)
  end
end
return replies
