-- Shared by every script of a shard.
-- KEYS[1] is "tenure:{0}:clock" (or "tenure:{workers}:all"); every other key is derived from it and so has its hash tag.
local PREFIX = string.match(KEYS[1], '^(.*:)')

local function key(kind, name)
  if name then return PREFIX .. kind .. ':' .. name end
  return PREFIX .. kind
end

-- Unix milliseconds by the server's clock: for people, and for nothing that decides about a lease.
local function wall_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- The lease clock in milliseconds: it stands still while no master ticks it.
local function lease_ms()
  return tonumber(redis.call('HGET', KEYS[1], 'now') or '0')
end

local function int(value)
  return string.format('%.0f', value)
end

-- Whether this is the text of a JSON object ('{') or list ('['), as we write them; false for what isn't kept.
local function is_json(content, opening)
  return content and string.sub(content, 1, 1) == opening and (pcall(cjson.decode, content))
end

local EVENTS_MAX = 100000

-- Tell every watcher and every master. The stream is trimmed: a watcher that was away too long lists anew.
local function event(id, search, transition, state, worker, epoch)
  redis.call('XADD', key('events'), 'MAXLEN', '~', EVENTS_MAX, '*', 'task', id, 'search', search, 'transition', transition,
    'state', state, 'worker', worker or '', 'epoch', epoch or '0')
end

local function counter(name, by)
  redis.call('HINCRBY', key('counters'), name, by or 1)
end

-- Move one task's count from one state to another; '' is "does not exist".
local function recount(search, from, to)
  local search_key = key('search', search)
  if from ~= '' then redis.call('HINCRBY', search_key, 'n:' .. from, -1) end
  if to ~= '' then redis.call('HINCRBY', search_key, 'n:' .. to, 1) end
end
