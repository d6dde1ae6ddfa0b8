-- checkpoint: register checkpoints under their lease tokens. A checkpoint exists only once it is registered, and only
-- the broker decides which are deleted: the last two and the best are kept.
--
-- @include lib/base.lua lib/queue.lua lib/leave.lua
-- @flags   allow-oom
-- KEYS[1]  the shard's clock
-- ARGV[1]  JSON [{id, token, worker, url, checkpoint}]; `checkpoint` is JSON text {url, step, digest, size, epoch, score}
-- Replies  [[verdict, [URL to delete, …]], …]; OK, STALE or UNKNOWN_TASK
-- Retry    safe: a URL is registered once; what was retired before stays so, and is named again for deletion
local KEEP_LAST = 2
local RETIRED_MAX = 20

-- No score, and one that is no number, is the worst.
local function worth(checkpoint)
  local score = checkpoint.score
  return score == score and score or -math.huge
end

-- The list is newest first. What is neither among the last two nor the best goes.
local function retire(list, retired)
  local all = redis.call('LRANGE', list, 0, -1)
  if #all <= KEEP_LAST then return {} end
  local best, decoded = 1, {}
  for n, text in ipairs(all) do
    decoded[n] = cjson.decode(text)
    if worth(decoded[best]) < worth(decoded[n]) then best = n end
  end
  local urls = {}
  for n = KEEP_LAST + 1, #all do
    if n ~= best then
      redis.call('LREM', list, 1, all[n])
      urls[#urls + 1] = decoded[n].url
      redis.call('LPUSH', retired, decoded[n].url)
    end
  end
  if #urls > 0 then redis.call('LTRIM', retired, 0, RETIRED_MAX - 1) end
  return urls
end

-- Whether this URL was announced before: a worker whose stream broke announces again what it got no verdict on.
local function announced_before(url, list, retired)
  for _, text in ipairs(redis.call('LRANGE', list, 0, -1)) do
    if cjson.decode(text).url == url then return true end
  end
  for _, gone in ipairs(retired) do
    if gone == url then return true end
  end
  return false
end

local function register(item, now)
  local task = load_task(item.id)
  if not task then return {'UNKNOWN_TASK', {}} end
  if not holds(task, item.token, item.worker) then
    counter('stale_refused')
    return {'STALE', {}}
  end
  local list = key('checkpoints', item.id)
  local retired = redis.call('LRANGE', key('retired', item.id), 0, -1)
  if announced_before(item.url, list, retired) then return {'OK', retired} end
  redis.call('LPUSH', list, item.checkpoint)
  -- See lib/compute.lua.
  local run = math.max(0, now - (tonumber(task.leased) or now))
  redis.call('HSET', key('task', item.id), 'checkpointed', '1', 'kept', task.epoch .. ' ' .. int(run))
  counter('checkpoints')
  return {'OK', retire(list, key('retired', item.id))}
end

local now = wall_ms()
local replies = {}
for i, item in ipairs(cjson.decode(ARGV[1])) do replies[i] = register(item, now) end
return replies
