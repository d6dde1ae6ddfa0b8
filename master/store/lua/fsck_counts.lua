-- fsck_counts: how many tasks are said to share each payload, to have each class and to name each code, a part at a time.
-- Reads only.
-- A payload is reported at least once (HSCAN's promise).
--
-- @include lib/base.lua
-- @flags   no-writes
-- KEYS[1]  the shard's clock
-- ARGV[1]  cursor; 0 begins
-- Replies  [next cursor, 0 at the end; payload digest and count as a flat list; class and count as a flat list, the whole
--          with each part; code and count, likewise]
local COUNT = 500

local page = redis.call('HSCAN', key('payload-refs'), ARGV[1], 'COUNT', COUNT)
return {page[1], page[2], redis.call('HGETALL', key('class-tasks')), redis.call('HGETALL', key('code-tasks'))}
