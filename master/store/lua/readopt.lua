-- readopt: a holder that is back gets its lease again. QUEUED or SCHEDULED -> LEASED, under its old token and epoch.
--
-- That is right when nobody was given the task since: either the reaper took this very lease (its token is kept as
-- reaped_token until somebody claims; the loss is taken back), or the store was rolled back behind the claim (the
-- holder's epoch is ahead of the store's). In the second case the store may still name an earlier holder, whose lease
-- had ended before this one began: LEASED -> LEASED.
--
-- @include lib/base.lua lib/queue.lua lib/leave.lua lib/compute.lua lib/adopt.lua
-- @flags   allow-oom
-- KEYS[1]  the shard's clock
-- ARGV[1]  JSON {ttl, items: [{id, token, worker, instance, epoch}]}; ttl in ms
-- Replies  [word, …]: READOPTED, AHEAD (readopted, and the store must have been rolled back), LOST, FINISHED or UNKNOWN
-- Events   readopt
-- Retry    safe: a lease that was given back is renewed from then on
local call = cjson.decode(ARGV[1])
local now = wall_ms()
local expiry = lease_ms() + call.ttl

local function readopt(item)
  local task = load_task(item.id)
  if not task then return 'UNKNOWN' end
  local leased = task.state == 'LEASED'
  if leased and holds(task, item.token, item.worker) then return 'READOPTED' end
  if not leased and task.state ~= 'QUEUED' and task.state ~= 'SCHEDULED' then return 'FINISHED' end
  if item.token == '' then return 'LOST' end
  local ahead = item.epoch > tonumber(task.epoch)
  if was_reaped(task, item.token) then
    undo_expiry(item.id, task, item, expiry)
  elseif ahead then
    adopt(item.id, task, item, expiry, now)
  else
    return 'LOST'
  end
  return ahead and 'AHEAD' or 'READOPTED'
end

local replies = {}
for i, item in ipairs(call.items) do replies[i] = readopt(item) end
return replies
