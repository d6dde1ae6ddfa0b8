-- fsck_indexes: prove for one search that its counts are those of its indexes, and that the fair queues know it.
-- Reads only. The counts are constant-time; nothing is walked but the search's classes.
--
-- @include lib/base.lua lib/queue.lua
-- @flags   no-writes
-- KEYS[1]  the shard's clock
-- ARGV[1]  search
-- Replies  [violation, …]
local search = ARGV[1]
local violations = {}

local function violation(text)
  violations[#violations + 1] = 'search ' .. search .. ': ' .. text
end

local function count(state)
  return tonumber(redis.call('HGET', key('search', search), 'n:' .. state) or '0')
end

local queued = 0
local allowed = may_be_served(key('search', search))
for _, class in ipairs(redis.call('SMEMBERS', key('classes', search))) do
  local size = redis.call('ZCARD', ready_key(search, class))
  queued = queued + size
  if size == 0 then violation('class ' .. class .. ' is listed but has no ready task') end
  local offered = redis.call('ZSCORE', key('fair', class), search)
  if allowed and not offered then violation('class ' .. class .. ' has ready tasks that nobody is offered') end
  if offered and not allowed then violation('class ' .. class .. ' is offered though the search may not be served') end
end
if queued ~= count('QUEUED') then violation('counts ' .. count('QUEUED') .. ' QUEUED, its indexes hold ' .. queued) end

local total = count('QUEUED') + count('SCHEDULED') + count('LEASED')
for _, state in ipairs({'SUCCEEDED', 'FAILED', 'CANCELLED'}) do
  local size = redis.call('ZCARD', key('ended', search .. ':' .. state))
  total = total + size
  if size ~= count(state) then violation('counts ' .. count(state) .. ' ' .. state .. ', its index holds ' .. size) end
end
local members = redis.call('ZCARD', key('members', search))
if total ~= members then violation('has ' .. members .. ' members, its states add up to ' .. total) end
local keys = redis.call('HLEN', key('keys', search))
if keys ~= members then violation('has ' .. members .. ' members and ' .. keys .. ' keys') end
-- They only grow, by whole ms (lib/compute.lua).
local fields = redis.call('HGETALL', key('search', search))
for n = 1, #fields, 2 do
  local spent = fields[n] == 'useful_ms' or string.match(fields[n], '^saved_ms:') or string.match(fields[n], '^wasted_ms:')
  if spent and not string.match(fields[n + 1], '^%d+$') then
    violation('counts ' .. fields[n + 1] .. ' as its ' .. fields[n])
  end
end
return violations
