-- pace: how many tasks of a search ended of late. Reads only, and decides nothing.
--
-- @include lib/base.lua
-- @flags   no-writes
-- KEYS[1]  the shard's clock
-- ARGV[1]  search
-- ARGV[2…] ms before now
-- Replies  [wall ms, ended since ARGV[2], …]
local now = wall_ms()
local reply = {int(now)}
for i = 2, #ARGV do
  local count = 0
  for _, state in ipairs({'SUCCEEDED', 'FAILED', 'CANCELLED'}) do
    count = count + redis.call('ZCOUNT', key('ended', ARGV[1] .. ':' .. state), int(now - ARGV[i]), '+inf')
  end
  reply[i] = int(count)
end
return reply
