-- Orphans: what workers tell of tasks that the store has lost, because it came back older than it was. Needs base.
--
-- A task's origin is JSON [search, key, digest of its payload]: what it is, whatever its id. The worker was told it with
-- the task and says it back. An orphan waits for its task to be submitted again, from the same origin:
--
-- orphans     origin -> JSON {id, token, worker, instance, epoch, expiry, success}; the lease as its holder told it last, until
--             `expiry` on the lease clock; `success` (as complete.lua has it) once there is one
-- orphans-at  origins by wall time, for retention
local ORPHANS_MAX = 10000

-- The task that was submitted from this origin meanwhile, under another id, or nil.
local function twin(origin)
  local search, name, digest = unpack(cjson.decode(origin))
  local id = redis.call('HGET', key('keys', search), name)
  if id and redis.call('HGET', key('task', id), 'payload') == digest then return id end
  return nil
end

local function orphan_of(origin)
  local text = redis.call('HGET', key('orphans'), origin)
  return text and cjson.decode(text) or nil
end

local function drop_orphan(origin)
  redis.call('HDEL', key('orphans'), origin)
  redis.call('ZREM', key('orphans-at'), origin)
end

-- The newest lease counts; a success is never replaced by less.
local function keep_orphan(origin, orphan, now)
  local known = orphan_of(origin)
  if known and known.success then return end
  if known and not orphan.success and known.epoch > orphan.epoch then return end
  if not known then counter('orphans_kept') end
  redis.call('HSET', key('orphans'), origin, cjson.encode(orphan))
  redis.call('ZADD', key('orphans-at'), int(now), origin)
  local surplus = redis.call('ZCARD', key('orphans-at')) - ORPHANS_MAX
  if surplus > 0 then
    for _, oldest in ipairs(redis.call('ZRANGE', key('orphans-at'), 0, surplus - 1)) do drop_orphan(oldest) end
  end
end

local function keep_success(origin, item, now)
  -- cjson would round it.
  if item.fitness then item.fitness = string.format('%.17g', item.fitness) end
  keep_orphan(origin, {id = item.id, token = item.token, worker = item.worker, epoch = item.epoch, expiry = 0,
    success = item}, now)
end
