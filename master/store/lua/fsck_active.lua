-- fsck_active: prove that the shard's leases and scheduled tasks are of tasks that exist in that state, and that the
-- searches' counts add up to them. Reads only.
--
-- @include lib/base.lua
-- @flags   no-writes
-- KEYS[1]  the shard's clock
-- ARGV[1]  offset into both indexes
-- Replies  [next offset or '', [violation, …]]
local STEP = 500

local violations = {}
local from = tonumber(ARGV[1])
local more = false

local function check(index, state)
  local ids = redis.call('ZRANGE', key(index), from, from + STEP - 1)
  for _, id in ipairs(ids) do
    local found = redis.call('HGET', key('task', id), 'state')
    if found ~= state then
      violations[#violations + 1] = 'task ' .. id .. ' is in the index ' .. index .. ' but is ' .. (found or 'unknown')
    end
  end
  more = more or #ids == STEP
end

check('leases', 'LEASED')
check('scheduled', 'SCHEDULED')
if from == 0 then
  for index, state in pairs({leases = 'LEASED', scheduled = 'SCHEDULED'}) do
    local counted = 0
    for _, name in ipairs(redis.call('ZRANGE', key('searches'), 0, -1)) do
      counted = counted + tonumber(redis.call('HGET', key('search', name), 'n:' .. state) or '0')
    end
    local size = redis.call('ZCARD', key(index))
    if size ~= counted then
      violations[#violations + 1] = 'the index ' .. index .. ' holds ' .. size .. ', the searches count ' .. counted
    end
  end
end
return {more and int(from + STEP) or '', violations}
