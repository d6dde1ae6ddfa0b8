-- The ready index: one sorted set a (search, requirement class), and who is served next.
--
-- ready:<class>|<search>  task ids by (priority, submission order)
-- classes:<search>        the classes of this search with ready tasks
-- fair:<class>            searches that have ready tasks of this class and may be served, by (priority, pass).
--                         Stride scheduling (Waldspurger and Weihl, 1995): each task served adds 100 / weight to the
--                         search's pass, and the smallest pass is served next. A search that joins starts at the
--                         present pass of its priority, so that idling earns no credit.
local BAND = 1e12

local function present_pass(priority)
  return tonumber(redis.call('HGET', KEYS[1], 'pass:' .. int(priority)) or '0')
end

local function ready_key(search, class)
  return key('ready', class .. '|' .. search)
end

local function fair_score(priority, pass)
  return string.format('%.3f', -priority * BAND + pass)
end

local function may_be_served(search_key)
  local s = redis.call('HMGET', search_key, 'status', 'max_leased', 'n:LEASED', 'priority', 'pass')
  if s[1] ~= 'active' then return false end
  local most = tonumber(s[2] or '0')
  if most > 0 and tonumber(s[3] or '0') >= most then return false end
  return true, tonumber(s[4] or '0'), tonumber(s[5] or '0')
end

-- Let the class's fair queue know whether this search waits in it.
local function offer_class(search, class, allowed, priority, pass)
  local fair = key('fair', class)
  if not allowed then
    redis.call('ZREM', fair, search)
  elseif not redis.call('ZSCORE', fair, search) then
    redis.call('ZADD', fair, fair_score(priority, math.max(pass, present_pass(priority))), search)
  end
end

-- After anything that changes whether a search may be served: status, cap, a lease that ended.
local function offer(search)
  local allowed, priority, pass = may_be_served(key('search', search))
  for _, class in ipairs(redis.call('SMEMBERS', key('classes', search))) do
    offer_class(search, class, allowed, priority, pass)
  end
end

-- After a change of priority the places in the fair queues are made anew.
local function offer_anew(search)
  for _, class in ipairs(redis.call('SMEMBERS', key('classes', search))) do
    redis.call('ZREM', key('fair', class), search)
  end
  offer(search)
end

-- Since when, on the wall, a QUEUED task can be taken: it was queued then, or else submitted. Tasks of earlier versions
-- don't say when they were queued again; not while they were leased.
local function takeable_since(queued, submitted, leased)
  return math.max(tonumber(queued or submitted or '0'), tonumber(leased or '0'))
end

local function enqueue(id, search, class, priority, seq)
  redis.call('ZADD', ready_key(search, class), int(-priority * BAND + seq), id)
  if redis.call('SADD', key('classes', search), class) == 1 then
    local allowed, search_priority, pass = may_be_served(key('search', search))
    offer_class(search, class, allowed, search_priority, pass)
  end
end

local function class_drained(search, class)
  if redis.call('EXISTS', ready_key(search, class)) == 0 then
    redis.call('SREM', key('classes', search), class)
    redis.call('ZREM', key('fair', class), search)
  end
end

local function dequeue(id, search, class)
  redis.call('ZREM', ready_key(search, class), id)
  class_drained(search, class)
end
