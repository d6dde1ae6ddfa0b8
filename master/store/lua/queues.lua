-- queues: a shard's ready tasks by search and requirement class. Reads only.
--
-- @include lib/base.lua lib/queue.lua lib/waits.lua
-- @flags   no-writes
-- KEYS[1]  the shard's clock
-- ARGV[1]  offset into all searches, the oldest first; 500 a call
-- Replies  [[[search, class, ready tasks, ms the oldest has waited], …], next offset or '']
local STEP = 500

local now, from = wall_ms(), tonumber(ARGV[1])
local names = redis.call('ZRANGE', key('searches'), from, from + STEP - 1)
local found = {}
for _, name in ipairs(names) do
  for _, class in ipairs(redis.call('SMEMBERS', key('classes', name))) do
    local oldest = oldest_takeable(name, class, now)
    if oldest then
      found[#found + 1] = {name, class, redis.call('ZCARD', ready_key(name, class)), int(math.max(0, now - oldest))}
    end
  end
end
return {found, #names == STEP and int(from + STEP) or ''}
