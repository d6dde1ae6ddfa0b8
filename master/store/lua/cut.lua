-- cut: the stream of these holders broke: leave their leases a short grace. A holder that is alive renews in time.
--
-- @include lib/base.lua lib/queue.lua lib/leave.lua
-- @flags   allow-oom
-- KEYS[1]  the shard's clock
-- ARGV[1]  JSON {grace, items: [{id, token}]}; grace in ms
-- Replies  how many leases were shortened
-- Retry    safe
local call = cjson.decode(ARGV[1])
local clock = lease_ms()
local expiry = int(clock + call.grace)
local shortened = 0
for _, item in ipairs(call.items) do
  local task = redis.call('HMGET', key('task', item.id), 'state', 'token')
  if task[1] == 'LEASED' and task[2] == item.token then
    if redis.call('ZADD', key('leases'), 'XX', 'LT', 'CH', expiry, item.id) == 1 then
      shortened = shortened + 1
      -- For as long as that is its expiry; see expire.
      redis.call('HSET', key('task', item.id), 'cut', expiry .. ' ' .. int(clock))
    end
  end
end
return shortened
