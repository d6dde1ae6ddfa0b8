-- code_seal: all pieces have come, and the master has compared their digest: the archive is whole from now on, or dropped.
--
-- @include lib/base.lua lib/code.lua
-- @flags   allow-oom
-- KEYS[1]  the shard's clock
-- ARGV[1]  digest
-- ARGV[2]  bytes that were compared
-- ARGV[3]  1 if they have the digest, 0 if not
-- Replies  WHOLE, DROPPED, or CHANGED (what was compared is there no longer)
-- Retry    safe
local digest, part = ARGV[1], key('code-part', ARGV[1])
if not code_kept(digest) then
  if redis.call('STRLEN', part) ~= tonumber(ARGV[2]) or ARGV[2] == '0' then return 'CHANGED' end
  if ARGV[3] ~= '1' then
    redis.call('DEL', part)
    return 'DROPPED'
  end
  redis.call('RENAME', part, key('code', digest))
  redis.call('PERSIST', key('code', digest))
end
touch_code(digest, wall_ms())
return 'WHOLE'
