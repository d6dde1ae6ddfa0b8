-- code_put: the next piece of an archive that is being uploaded. What nobody goes on with is dropped after an hour.
--
-- @include lib/base.lua lib/code.lua
-- KEYS[1]  the shard's clock
-- ARGV[1]  digest
-- ARGV[2]  bytes of the whole archive
-- ARGV[3]  where the piece belongs
-- ARGV[4]  the piece; empty = only ask
-- Replies  [WHOLE, bytes] (it is there already), [PART, bytes that have come by now] or TOO_LONG (nothing was written)
-- Retry    safe: a piece that belongs elsewhere than at the end changes nothing
local PART_SECONDS = 3600

local digest, size, offset, piece = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
if code_kept(digest) then
  touch_code(digest, wall_ms())
  return {'WHOLE', redis.call('STRLEN', key('code', digest))}
end
local part = key('code-part', digest)
local come = redis.call('STRLEN', part)
if piece == '' or offset ~= come then return {'PART', come} end
if come + #piece > size then return 'TOO_LONG' end
redis.call('APPEND', part, piece)
redis.call('EXPIRE', part, PART_SECONDS)
return {'PART', come + #piece}
