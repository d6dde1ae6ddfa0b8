-- checkpoint: register checkpoints under their lease tokens. A checkpoint exists only once it is registered, and only
-- the broker decides which are deleted: the last two and the best are kept.
--
-- @include lib/base.lua lib/queue.lua lib/leave.lua
-- @flags   allow-oom
-- KEYS[1]  the shard's clock
-- ARGV[1]  JSON [{id, token, worker, url, checkpoint}]; `checkpoint` is JSON text {url, step, digest, size, epoch, score}
-- Replies  [[verdict, [URL to delete, …]], …]; OK, STALE or UNKNOWN_TASK
-- Retry    safe: a URL is registered once
local KEEP_LAST = 2

local function worse(a, b)
  return (a.score or -math.huge) < (b.score or -math.huge)
end

-- The list is newest first. What is neither among the last two nor the best goes.
local function retire(list)
  local all = redis.call('LRANGE', list, 0, -1)
  if #all <= KEEP_LAST then return {} end
  local best, decoded = 1, {}
  for n, text in ipairs(all) do
    decoded[n] = cjson.decode(text)
    if worse(decoded[best], decoded[n]) then best = n end
  end
  local urls = {}
  for n = KEEP_LAST + 1, #all do
    if n ~= best then
      redis.call('LREM', list, 1, all[n])
      urls[#urls + 1] = decoded[n].url
    end
  end
  return urls
end

local function register(item)
  local task = load_task(item.id)
  if not task then return {'UNKNOWN_TASK', {}} end
  if not holds(task, item.token, item.worker) then
    counter('stale_refused')
    return {'STALE', {}}
  end
  local list = key('checkpoints', item.id)
  for _, text in ipairs(redis.call('LRANGE', list, 0, -1)) do
    if cjson.decode(text).url == item.url then return {'OK', {}} end
  end
  redis.call('LPUSH', list, item.checkpoint)
  redis.call('HSET', key('task', item.id), 'checkpointed', '1')
  counter('checkpoints')
  return {'OK', retire(list)}
end

local replies = {}
for i, item in ipairs(cjson.decode(ARGV[1])) do replies[i] = register(item) end
return replies
