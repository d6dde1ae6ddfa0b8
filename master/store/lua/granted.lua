-- granted: which leases carry one of these tokens. For claims whose answer was lost: the master gives such leases back.
-- Reads only.
--
-- @include lib/base.lua
-- @flags   no-writes
-- KEYS[1]  the shard's clock
-- ARGV[1]  offset into the leases
-- ARGV[2…] lease tokens
-- Replies  [next offset or '', [[task id, token, worker], …]]
local STEP = 500

local wanted = {}
for i = 2, #ARGV do wanted[ARGV[i]] = true end
local from = tonumber(ARGV[1])
local found = {}
local ids = redis.call('ZRANGE', key('leases'), from, from + STEP - 1)
for _, id in ipairs(ids) do
  local task = redis.call('HMGET', key('task', id), 'token', 'worker')
  if task[1] and wanted[task[1]] then found[#found + 1] = {id, task[1], task[2] or ''} end
end
return {#ids == STEP and int(from + STEP) or '', found}
