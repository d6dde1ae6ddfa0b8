-- forget_orphans: retention for what workers told of tasks that the store has lost and that nobody submitted again.
--
-- @include lib/base.lua lib/orphans.lua
-- @flags   allow-oom
-- KEYS[1]  the shard's clock
-- ARGV[1]  the greatest age in ms
-- ARGV[2]  the most to delete, at most 100
-- Replies  how many were deleted
-- Retry    safe
local old = redis.call('ZRANGEBYSCORE', key('orphans-at'), '-inf', int(wall_ms() - ARGV[1]), 'LIMIT', 0, ARGV[2])
for _, origin in ipairs(old) do drop_orphan(origin) end
return #old
