-- worker_list: the registry. Reads only.
--
-- @include lib/base.lua
-- @flags   no-writes
-- KEYS[1]  the set of all workers, "tenure:{workers}:all"
-- ARGV…    worker ids; none = all (of at most 10,000)
-- Replies  [[id, ms since it was seen, its hash as a flat list], …]
local WORKERS_MAX = 10000

local now = wall_ms()
local ids = ARGV
if #ids == 0 then ids = redis.call('ZRANGE', KEYS[1], 0, WORKERS_MAX - 1) end
local replies = {}
for _, id in ipairs(ids) do
  local seen = redis.call('ZSCORE', KEYS[1], id)
  if seen then
    replies[#replies + 1] = {id, int(math.max(0, now - tonumber(seen))), redis.call('HGETALL', key('worker', id))}
  end
end
return replies
