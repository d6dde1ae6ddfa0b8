-- readopt: a holder that is back gets its lease again. QUEUED or SCHEDULED -> LEASED, under its old token and epoch.
--
-- That is right when nobody was given the task since: either the reaper took this very lease (its token is kept as
-- reaped_token until somebody claims; the loss is taken back), or the store was rolled back behind the claim (the
-- holder's epoch is ahead of the store's).
--
-- @include lib/base.lua lib/queue.lua lib/leave.lua
-- @flags   allow-oom
-- KEYS[1]  the shard's clock
-- ARGV[1]  JSON {ttl, items: [{id, token, worker, epoch}]}; ttl in ms
-- Replies  [word, …]: READOPTED, LOST, FINISHED or UNKNOWN
-- Events   readopt
-- Retry    safe: a lease that was given back is renewed from then on
local call = cjson.decode(ARGV[1])
local now = wall_ms()
local expiry = int(lease_ms() + call.ttl)

local function give_back(item, task)
  local task_key = key('task', item.id)
  if item.token == task.reaped_token then
    redis.call('HINCRBY', task_key, 'losses', -1)
    redis.call('RPOP', key('attempts', item.id))
  end
  leave(item.id, task)
  local epoch = int(math.max(item.epoch, tonumber(task.epoch)))
  redis.call('HSET', task_key, 'state', 'LEASED', 'token', item.token, 'epoch', epoch,
    'worker', item.worker, 'leased', int(now), 'legacy', '0')
  redis.call('HDEL', task_key, 'reaped_token')
  redis.call('ZADD', key('leases'), expiry, item.id)
  recount(task.search, task.state, 'LEASED')
  offer(task.search)
  counter('readopted')
  event(item.id, task.search, 'readopt', 'LEASED', item.worker, epoch)
end

local function readopt(item)
  local task = load_task(item.id)
  if not task then return 'UNKNOWN' end
  if task.state == 'LEASED' then return holds(task, item.token, item.worker) and 'READOPTED' or 'LOST' end
  if task.state ~= 'QUEUED' and task.state ~= 'SCHEDULED' then return 'FINISHED' end
  if item.token == '' then return 'LOST' end
  if item.token ~= task.reaped_token and item.epoch <= tonumber(task.epoch) then return 'LOST' end
  give_back(item, task)
  return 'READOPTED'
end

local replies = {}
for i, item in ipairs(call.items) do replies[i] = readopt(item) end
return replies
