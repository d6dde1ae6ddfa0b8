-- renew: the holder is alive; its lease starts anew and its progress is kept. Also where a holder learns that it is
-- none any more. LEASED stays LEASED.
--
-- @include lib/base.lua lib/queue.lua lib/leave.lua
-- @flags   allow-oom
-- KEYS[1]  the shard's clock
-- ARGV[1]  JSON {ttl, items: [{id, token, worker, progress}]}; ttl in ms; `progress` is JSON text or absent
-- Replies  [word, …]: OK, CANCEL (renewed, but somebody wants it stopped), LOST (somebody else holds it), OPEN (nobody
--          holds it: readopt may give it back), FINISHED or UNKNOWN
-- Retry    safe
local call = cjson.decode(ARGV[1])
local now = wall_ms()
local expiry = int(lease_ms() + call.ttl)

local function renew(item)
  local task = load_task(item.id)
  if not task then return 'UNKNOWN' end
  if task.state == 'QUEUED' or task.state == 'SCHEDULED' then return 'OPEN' end
  if task.state ~= 'LEASED' then return 'FINISHED' end
  if not holds(task, item.token, item.worker) then return 'LOST' end
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
