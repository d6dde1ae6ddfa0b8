-- code_forget: delete archives that no task and no search names, and that nobody has asked for lately.
--
-- @include lib/base.lua lib/code.lua
-- @flags   allow-oom
-- KEYS[1]  the shard's clock
-- ARGV[1]  how long in ms an archive is kept that nobody needs
-- ARGV[2]  how many to look at, at most
-- Replies  how many were deleted
-- Retry    safe
local now = wall_ms()
local idle = redis.call('ZRANGEBYSCORE', key('codes'), '-inf', int(now - tonumber(ARGV[1])), 'LIMIT', 0, ARGV[2])
if #idle == 0 then return 0 end
local named = {}
for _, name in ipairs(redis.call('ZRANGE', key('searches'), 0, -1)) do
  named[redis.call('HGET', key('search', name), 'code') or ''] = true
end
local deleted = 0
for _, digest in ipairs(idle) do
  if named[digest] or redis.call('HEXISTS', key('code-tasks'), digest) == 1 then
    -- Not looked at again before so long.
    touch_code(digest, now)
  else
    redis.call('UNLINK', key('code', digest))
    redis.call('ZREM', key('codes'), digest)
    deleted = deleted + 1
  end
end
return deleted
