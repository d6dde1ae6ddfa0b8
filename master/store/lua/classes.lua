-- classes: every requirement class that tasks have. Reads only.
--
-- @include lib/base.lua
-- @flags   no-writes
-- KEYS[1]  the shard's clock
-- Replies  class and requirements JSON as a flat list
return redis.call('HGETALL', key('class-requirements'))
