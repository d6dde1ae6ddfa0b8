-- due: what the reaper decides by before it takes leases back. Reads only.
--
-- @include lib/base.lua
-- @flags   no-writes
-- KEYS[1]  the shard's clock
-- Replies  [leases due, leases in all, workers among the first 100 due]
local clock = int(lease_ms())
local workers, known = 0, {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', key('leases'), '-inf', clock, 'LIMIT', 0, 100)) do
  local worker = redis.call('HGET', key('task', id), 'worker') or ''
  if not known[worker] then
    known[worker] = true
    workers = workers + 1
  end
end
return {redis.call('ZCOUNT', key('leases'), '-inf', clock), redis.call('ZCARD', key('leases')), workers}
