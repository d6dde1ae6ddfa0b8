-- submit: new tasks of one search, all or none. Creates the search if it is new.
--
-- A task that the store had lost in a rollback, and that a worker has told of since (lib/orphans.lua), gets its old id
-- back, and at once its holder's lease or its result.
--
-- @include lib/base.lua lib/queue.lua lib/leave.lua lib/compute.lua lib/success.lua lib/adopt.lua lib/orphans.lua lib/code.lua
-- KEYS[1]  the shard's clock
-- ARGV[1]  JSON {search, format, blobs: {digest: n}, tasks: [{id, key, class, requirements, priority, max_attempts,
--          max_losses, max_ooms, timeout, progress, delay, payload, origin, code?, trace?}]}; times in ms, `payload` and `code`
--          are digests
-- ARGV[2…] the payloads; that of digest d is ARGV[1 + blobs[d]]
-- Replies  [[verdict, task id, state, trace], …] with verdict OK or DUPLICATE (the key is known: that task's id and state),
--          or the one word SEARCH_CANCELLED, UNKNOWN_CODE (of a task, known or not) or TOO_MANY_CLASSES.
--          Nothing is written then.
-- Events   submit; complete or readopt
-- Retry    safe: the keys make it idempotent
local CLASSES_MAX = 64

local request = cjson.decode(ARGV[1])
local search = request.search
local search_key = key('search', search)

local status = redis.call('HGET', search_key, 'status')
if status == 'cancelled' then return 'SEARCH_CANCELLED' end

for _, task in ipairs(request.tasks) do
  if task.code and not code_kept(task.code) then return 'UNKNOWN_CODE' end
end

local known_classes = redis.call('HLEN', key('class-requirements'))
local fresh = {}
for _, task in ipairs(request.tasks) do
  if not fresh[task.class] and redis.call('HEXISTS', key('class-requirements'), task.class) == 0 then
    fresh[task.class] = true
    known_classes = known_classes + 1
  end
end
if known_classes > CLASSES_MAX then return 'TOO_MANY_CLASSES' end

local now = wall_ms()
if not status then
  redis.call('HSET', search_key, 'status', 'active', 'created', int(now), 'priority', '0', 'weight', '1',
    'max_leased', '0', 'format', request.format or 'graph', 'pass', '0')
  redis.call('ZADD', key('searches'), int(now), search)
end

local keys_key = key('keys', search)

local mended = {}

-- Equal content has an equal digest, so what is kept under it and differs was damaged, or compressed by another zlib. Whoever
-- submits a task again has what was lost.
local function mend_payload(digest)
  if mended[digest] then return end
  mended[digest] = true
  local content = ARGV[1 + request.blobs[digest]]
  if redis.call('HEXISTS', key('payload-refs'), digest) == 1 and redis.call('GET', key('payload', digest)) ~= content then
    redis.call('SET', key('payload', digest), content)
  end
end

local function create(task)
  local seq = redis.call('INCR', key('seq'))
  local delayed = task.delay > 0
  local state = delayed and 'SCHEDULED' or 'QUEUED'
  redis.call('HSET', keys_key, task.key, task.id)
  if redis.call('HINCRBY', key('payload-refs'), task.payload, 1) == 1 then
    redis.call('SET', key('payload', task.payload), ARGV[1 + request.blobs[task.payload]])
    mended[task.payload] = true
  else
    mend_payload(task.payload)
  end
  redis.call('HSETNX', key('class-requirements'), task.class, task.requirements)
  redis.call('HINCRBY', key('class-tasks'), task.class, 1)
  redis.call('HSET', key('task', task.id), 'state', state, 'search', search, 'class', task.class,
    'priority', task.priority, 'seq', seq, 'key', task.key, 'payload', task.payload, 'submitted', int(now),
    'attempts', 0, 'max_attempts', task.max_attempts, 'losses', 0, 'max_losses', task.max_losses, 'ooms', 0, 'max_ooms', task.max_ooms,
    'epoch', 0, 'timeout', int(task.timeout), 'progress', int(task.progress))
  if task.trace then redis.call('HSET', key('task', task.id), 'trace', task.trace) end
  if task.code then
    redis.call('HSET', key('task', task.id), 'code', task.code)
    task_names_code(task.code)
  end
  redis.call('ZADD', key('members', search), seq, task.id)
  recount(search, '', state)
  if delayed then
    redis.call('ZADD', key('scheduled'), int(lease_ms() + task.delay), task.id)
  else
    enqueue(task.id, search, task.class, task.priority, seq)
  end
  event(task.id, search, 'submit', state)
  return state
end

-- The new task is one that the store had lost: give it what its worker has told of it. Returns its state.
local function match(task, orphan)
  drop_orphan(task.origin)
  counter('orphans_matched')
  local new = load_task(task.id)
  if orphan.success then
    orphan.success.id = task.id
    return take_success(task.id, orphan.success, new, now)[2]
  elseif orphan.expiry > lease_ms() then
    adopt(task.id, new, orphan, orphan.expiry, now)
    return 'LEASED'
  end
  -- Its holder has been silent for longer than its lease. Should it live, its epoch is not given a second time.
  redis.call('HSET', key('task', task.id), 'epoch', int(orphan.epoch))
  return new.state
end

-- An equal task is there already. Where it has its result, that much work is not done again; once, since whoever asks
-- again may just not have heard the answer. Returns its state.
local function share(id)
  local found = redis.call('HMGET', key('task', id), 'state', 'worth')
  if found[1] == 'SUCCEEDED' and tonumber(found[2] or '0') > 0 then
    add_ms(search, 'saved_ms:shared', tonumber(found[2]))
    redis.call('HDEL', key('task', id), 'worth')
  end
  return found[1]
end

local replies = {}
for i, task in ipairs(request.tasks) do
  local known = redis.call('HGET', keys_key, task.key)
  if known then
    mend_payload(task.payload)
    replies[i] = {'DUPLICATE', known, share(known), redis.call('HGET', key('task', known), 'trace') or ''}
  else
    local orphan = orphan_of(task.origin)
    if orphan and redis.call('EXISTS', key('task', orphan.id)) == 0 then task.id = orphan.id else orphan = nil end
    local state = create(task)
    if orphan then state = match(task, orphan) end
    replies[i] = {'OK', task.id, state, task.trace or ''}
  end
end
return replies
