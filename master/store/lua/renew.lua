-- renew: the holder is alive; its lease starts anew and its progress is kept. Also where a holder learns that it is
-- none any more. LEASED stays LEASED.
--
-- @include lib/base.lua lib/queue.lua lib/leave.lua lib/orphans.lua
-- @flags   allow-oom
-- KEYS[1]  the shard's clock
-- ARGV[1]  JSON {ttl, items: [{id, token, worker, instance, epoch, progress, origin}]}; ttl in ms; `progress` is JSON text or
--          absent, so is `origin`
-- Replies  [word, …]: OK, CANCEL (renewed, but somebody wants it stopped), LOST (somebody else holds it), OPEN (nobody
--          holds it, or somebody of an earlier epoch: readopt may give it back), FINISHED, ORPHAN (the store has lost
--          the task: the result is wanted all the same) or UNKNOWN
-- Retry    safe
local call = cjson.decode(ARGV[1])
local now = wall_ms()
local expiry = int(lease_ms() + call.ttl)

local function renew_orphan(item)
  if not item.origin or item.token == '' then return 'UNKNOWN' end
  local id = twin(item.origin)
  if id then
    local state = redis.call('HGET', key('task', id), 'state')
    local open = state == 'QUEUED' or state == 'SCHEDULED' or state == 'LEASED'
    return open and 'ORPHAN' or 'FINISHED'
  end
  keep_orphan(item.origin, {id = item.id, token = item.token, worker = item.worker, instance = item.instance,
    epoch = item.epoch, expiry = lease_ms() + call.ttl}, now)
  return 'ORPHAN'
end

local function renew(item)
  local task = load_task(item.id)
  if not task then return renew_orphan(item) end
  if task.state == 'QUEUED' or task.state == 'SCHEDULED' then return 'OPEN' end
  if task.state ~= 'LEASED' then return 'FINISHED' end
  if not holds(task, item.token, item.worker) then
    return item.token ~= '' and item.epoch > tonumber(task.epoch) and 'OPEN' or 'LOST'
  end
  redis.call('ZADD', key('leases'), expiry, item.id)
  if item.progress then
    redis.call('SET', key('progress', item.id), item.progress)
    redis.call('HSET', key('task', item.id), 'progress_at', int(now))
  end
  return task.cancel == '1' and 'CANCEL' or 'OK'
end

local replies = {}
for i, item in ipairs(call.items) do replies[i] = renew(item) end
return replies
