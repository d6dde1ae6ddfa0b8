-- legacy_seen: legacy workers heartbeat; their leases are judged by it (see expire). A worker that says it is idle
-- while nothing of its is on the way is not kept alive by this: the master doesn't call it then.
--
-- @include lib/base.lua
-- @flags   allow-oom
-- KEYS[1]  the shard's clock
-- ARGV…    worker ids, at most 100
-- Replies  how many are new
-- Retry    safe
local DAY_MS = 24 * 3600 * 1000

local now = lease_ms()
local clock = int(now)
redis.call('ZREMRANGEBYSCORE', key('legacy-seen'), '-inf', int(now - DAY_MS))
local added = 0
for _, worker in ipairs(ARGV) do added = added + redis.call('ZADD', key('legacy-seen'), clock, worker) end
return added
