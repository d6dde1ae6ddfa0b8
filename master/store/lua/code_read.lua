-- code_read: a piece of an archive. Reads only.
--
-- @include lib/base.lua
-- @flags   no-writes
-- KEYS[1]  the shard's clock
-- ARGV[1]  digest
-- ARGV[2]  code, or code-part for one that is being uploaded
-- ARGV[3]  from where on
-- ARGV[4]  how many bytes at most, at least 1
-- Replies  [bytes of the whole, the piece], or nil if there is none
local archive = key(ARGV[2], ARGV[1])
local size = redis.call('STRLEN', archive)
if size == 0 then return nil end
local from = tonumber(ARGV[3])
return {size, redis.call('GETRANGE', archive, int(from), int(from + tonumber(ARGV[4]) - 1))}
