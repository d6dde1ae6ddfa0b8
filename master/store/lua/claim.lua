-- claim: give ready tasks to workers, each under a fresh lease. QUEUED -> LEASED.
--
-- @include lib/base.lua lib/queue.lua
-- @flags   allow-oom
-- KEYS[1]  the shard's clock
-- ARGV[1]  JSON {ttl, requests: [{worker, instance, legacy, classes: […], tokens: […], elsewhere: […]}]}; ttl in ms; a request
--          is given at most as many tasks as it brings tokens; 100 tokens in all. `elsewhere` are the classes that
--          another worker waits for, too; absent = none
-- Replies  for each request [[task id, token, epoch, attempt, search, timeout, progress deadline, payload,
--          [checkpoint JSON, …], key, payload's digest, ends out of memory, ms for which it could have been taken,
--          trace], …], newest first; empty when nothing is ready. The last may be the word PASSED_OVER: tasks wait that this worker lost
--          lately, for another to ask
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

-- What one call passes over, at most: a script must stay short. Whoever lost more waits a lease's time at worst.
local PASSED_OVER_MAX = 100
local may_pass_over = PASSED_OVER_MAX

-- Whether this worker lost the task less than a lease's time ago and another could have it. That another waits is the
-- caller's word; it may be out of date, so it is believed for a lease's time only. Alone, a worker is given its lost
-- task at once.
local function avoids(avoid, request, class)
  if not request.elsewhere then return false end
  local since, worker = string.match(avoid, '^(%d+):(.*)$')
  if worker ~= request.worker or clock - tonumber(since) >= call.ttl then return false end
  for _, other in ipairs(request.elsewhere) do
    if other == class then return true end
  end
  return false
end

-- The class and search to serve next among `classes`, or nil. `blocked` are those that have nothing but what this worker
-- is passed over for.
local function next_search(classes, blocked)
  local best_class, best_search, best_score
  for _, class in ipairs(classes) do
    local heads = redis.call('ZRANGE', key('fair', class), 0, blocked.count, 'WITHSCORES')
    for i = 1, #heads, 2 do
      if blocked.count == 0 or not blocked[class .. '|' .. heads[i]] then
        if not best_score or tonumber(heads[i + 1]) < best_score then
          best_class, best_search, best_score = class, heads[i], tonumber(heads[i + 1])
        end
        break
      end
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

local PASSED_OVER = 'PASSED_OVER'

local function grant(id, name, class, request, token)
  local task_key = key('task', id)
  local t = redis.call('HMGET', task_key, 'epoch', 'attempts', 'timeout', 'progress', 'payload', 'checkpointed',
    'reaped_token', 'key', 'avoid', 'ooms', 'rule_ooms', 'queued', 'submitted', 'leased', 'trace')
  if not t[1] then
    -- Can't be by our own scripts; an id without a task must not stop the others' claims.
    counter('orphans_dropped')
    return nil
  end
  if t[9] and avoids(t[9], request, class) then return PASSED_OVER end
  local epoch = tonumber(t[1]) + 1
  redis.call('HSET', task_key, 'state', 'LEASED', 'epoch', epoch, 'token', token, 'worker', request.worker,
    'leased', int(now), 'instance', request.instance, 'legacy', request.legacy and '1' or '0')
  if t[7] or t[9] then redis.call('HDEL', task_key, 'reaped_token', 'avoid') end
  redis.call('ZADD', key('leases'), expiry, id)
  local checkpoints = {}
  if t[6] then
    checkpoints = redis.call('LRANGE', key('checkpoints', id), 0, -1)
    if #checkpoints > 0 then redis.call('HINCRBY', task_key, 'resumes', 1) end
  end
  event(id, name, 'claim', 'LEASED', request.worker, epoch)
  local waited = math.max(0, now - takeable_since(t[12], t[13], t[14]))
  return {id, token, epoch, tonumber(t[2]) + 1, name, t[3], t[4], redis.call('GET', key('payload', t[5])), checkpoints,
    t[8], t[5], int((tonumber(t[10]) or 0) + (tonumber(t[11]) or 0)), int(waited), t[15]}
end

-- The first task in line that this worker may be given; what it is passed over for keeps its place.
local function take_first(name, class, request, token)
  local ready, passed, granted = ready_key(name, class), nil, nil
  repeat
    local popped = redis.call('ZPOPMIN', ready)
    granted = popped[1] and grant(popped[1], name, class, request, token)
    if granted == PASSED_OVER then
      passed = passed or {}
      passed[#passed + 1] = popped[2]
      passed[#passed + 1] = popped[1]
      may_pass_over = may_pass_over - 1
    end
  until granted ~= PASSED_OVER or may_pass_over <= 0
  if passed then redis.call('ZADD', ready, unpack(passed)) end
  return granted ~= PASSED_OVER and granted, passed
end

local function serve(request)
  local grants, blocked, passed_over, used = {}, {count = 0}, false, 0
  while used < #request.tokens and (not passed_over or may_pass_over > 0) do
    local class, name, score = next_search(request.classes, blocked)
    if not class then break end
    local s = load_search(name)
    local granted, passed = take_first(name, class, request, request.tokens[used + 1])
    if granted then
      grants[#grants + 1] = granted
      s.pass = math.max(s.pass, score + s.priority * BAND)
      redis.call('HSET', KEYS[1], 'pass:' .. int(s.priority), string.format('%.3f', s.pass))
      charge(name, s, request.classes)
    elseif passed then
      blocked[class .. '|' .. name] = true
      blocked.count = blocked.count + 1
    end
    if granted or not passed then used = used + 1 end
    passed_over = passed_over or passed ~= nil
    class_drained(name, class)
  end
  if passed_over then grants[#grants + 1] = PASSED_OVER end
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
