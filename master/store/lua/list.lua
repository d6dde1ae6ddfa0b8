-- list: ids of a search's tasks in the order of their submission, by state. Reads only, and at most 1,000 tasks a call.
--
-- @include lib/base.lua
-- @flags   no-writes
-- KEYS[1]  the shard's clock
-- ARGV[1]  search
-- ARGV[2]  submission number to start after
-- ARGV[3]  the most ids to return
-- ARGV[4…] states; none = any
-- Replies  [next submission number to start after, or '' at the end, [id, …]]
local SCAN_MAX = 1000

local wanted = {}
for i = 4, #ARGV do wanted[ARGV[i]] = true end
local most = tonumber(ARGV[3])
local rows = redis.call('ZRANGEBYSCORE', key('members', ARGV[1]), '(' .. ARGV[2], '+inf', 'WITHSCORES', 'LIMIT', 0,
  SCAN_MAX)
local ids, last = {}, ''
for i = 1, #rows, 2 do
  if #ARGV < 4 or wanted[redis.call('HGET', key('task', rows[i]), 'state')] then ids[#ids + 1] = rows[i] end
  last = rows[i + 1]
  if #ids == most then return {last, ids} end
end
if #rows < 2 * SCAN_MAX then last = '' end
return {last, ids}
