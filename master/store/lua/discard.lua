-- discard: take URLs of checkpoints that nobody needs, to have a worker delete them.
--
-- @include lib/base.lua
-- @flags   allow-oom
-- KEYS[1]  the shard's clock
-- ARGV[1]  the most to take
-- Replies  [URL, …]
-- Retry    an unanswered call loses its URLs: files stay behind, nothing else
return redis.call('LPOP', key('discarded'), tonumber(ARGV[1])) or {}
