-- overview: a shard's searches with their counts, and its clock, leases and counters, at one moment. Reads only.
--
-- @include lib/base.lua lib/queue.lua lib/waits.lua
-- @flags   no-writes
-- KEYS[1]  the shard's clock
-- ARGV[1]  offset into all searches, the oldest first
-- ARGV[2]  1 = with what waits: that reads the heads of every search's queues
-- ARGV[3…] search names; none = all, 500 a call
-- Replies  [[lease clock ms, wall ms, leases, due leases, scheduled, event stream length], counters as a flat list,
--          [[search, its hash as a flat list, ms the oldest queued task has waited, '-1' without one or unasked], …],
--          next offset or '']
local STEP = 500

local function oldest_wait(search, now)
  local oldest = now + 1
  for _, class in ipairs(redis.call('SMEMBERS', key('classes', search))) do
    oldest = math.min(oldest, oldest_takeable(search, class, now) or oldest)
  end
  return oldest > now and '-1' or int(now - oldest)
end

local now, clock = wall_ms(), lease_ms()
local names, next_offset = {}, ''
for i = 3, #ARGV do names[i - 2] = ARGV[i] end
if #names == 0 then
  local from = tonumber(ARGV[1])
  names = redis.call('ZRANGE', key('searches'), from, from + STEP - 1)
  if #names == STEP then next_offset = int(from + STEP) end
end
local searches = {}
for _, name in ipairs(names) do
  local hash = redis.call('HGETALL', key('search', name))
  if #hash > 0 then searches[#searches + 1] = {name, hash, ARGV[2] == '1' and oldest_wait(name, now) or '-1'} end
end
return {{int(clock), int(now), redis.call('ZCARD', key('leases')),
  redis.call('ZCOUNT', key('leases'), '-inf', int(clock)), redis.call('ZCARD', key('scheduled')),
  redis.call('XLEN', key('events'))}, redis.call('HGETALL', key('counters')), searches, next_offset}
