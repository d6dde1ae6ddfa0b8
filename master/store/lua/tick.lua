-- tick: advance the lease clock by the time that has passed since the last tick of any master, but never by more than
-- the cap: time in which no master could have renewed a lease, and jumps of the host's clock, do not count.
--
-- @include lib/base.lua
-- @flags   allow-oom
-- KEYS[1]  the shard's clock
-- ARGV[1]  the cap in ms
-- Replies  [lease clock ms, ms added, ms not counted]
-- Retry    safe
local now = wall_ms()
local last = tonumber(redis.call('HGET', KEYS[1], 'wall') or int(now))
local passed = now - last
local added = math.max(0, math.min(passed, tonumber(ARGV[1])))
redis.call('HSET', KEYS[1], 'wall', int(now))
local clock = redis.call('HINCRBY', KEYS[1], 'now', int(added))
return {clock, added, math.abs(passed - added)}
