-- fsck_payloads: payloads as they are kept, as many at a time as may be sent at once. Reads only.
--
-- @include lib/base.lua
-- @flags   no-writes
-- KEYS[1]  the shard's clock
-- ARGV[n]  a digest
-- Replies  [content, …] of the first of them, at least of one; nil for one that is not kept (any more)
local BYTES_MAX = 512 * 1024

local contents, bytes = {}, 0
for i, digest in ipairs(ARGV) do
  local content = redis.call('GET', key('payload', digest))
  bytes = bytes + (content and #content or 0)
  if i > 1 and bytes > BYTES_MAX then break end
  contents[i] = content
end
return contents
