-- ended: tasks of a search that ended in one state, by the time they ended. Reads only, and decides nothing.
--
-- @include lib/base.lua
-- @flags   no-writes
-- KEYS[1]  the shard's clock
-- ARGV[1]  search
-- ARGV[2]  state
-- ARGV[3]  unix ms to begin with
-- ARGV[4]  how many that ended in that very millisecond to pass over
-- ARGV[5]  the most to return
-- ARGV[6]  1 = backwards in time
-- Replies  [[task id, unix ms, fitness, '' without one, or '?' where the outcome is too long to be read here], …]
local OUTCOME_BYTES_MAX = 32768

local function fitness_of(id)
  local outcome_key = key('outcome', id)
  if redis.call('STRLEN', outcome_key) > OUTCOME_BYTES_MAX then return '?' end
  local read, outcome = pcall(cjson.decode, redis.call('GET', outcome_key) or '')
  local metrics = read and type(outcome) == 'table' and outcome.metrics
  local fitness = type(metrics) == 'table' and metrics.fitness
  return type(fitness) == 'number' and string.format('%.17g', fitness) or ''
end

local index = key('ended', ARGV[1] .. ':' .. ARGV[2])
local rows
if ARGV[6] == '1' then
  rows = redis.call('ZREVRANGEBYSCORE', index, ARGV[3], '-inf', 'WITHSCORES', 'LIMIT', ARGV[4], ARGV[5])
else
  rows = redis.call('ZRANGEBYSCORE', index, ARGV[3], '+inf', 'WITHSCORES', 'LIMIT', ARGV[4], ARGV[5])
end
local found = {}
for i = 1, #rows, 2 do
  found[#found + 1] = {rows[i], rows[i + 1], ARGV[2] == 'SUCCEEDED' and fitness_of(rows[i]) or ''}
end
return found
