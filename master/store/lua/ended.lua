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
-- ARGV[7]  1 = with the fitness of each, which is in its outcome; fewer are returned then if the outcomes are long
-- Replies  [[[task id, unix ms, fitness, '' without one, or '?' where the outcome is too long to be read here], …],
--          '1' if there may be more behind the last of them, or '']; at least one, if there is one
local OUTCOME_BYTES_MAX = 32768
-- Of all outcomes of a call, read here or, after '?', by the caller: nobody waits long for this script.
local BYTES_MAX = 262144

local function fitness_of(id, bytes)
  if bytes > OUTCOME_BYTES_MAX then return '?' end
  local read, outcome = pcall(cjson.decode, redis.call('GET', key('outcome', id)) or '')
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
local found, total = {}, 0
for i = 1, #rows, 2 do
  local id, fitness = rows[i], ''
  if ARGV[7] == '1' then
    local bytes = redis.call('STRLEN', key('outcome', id))
    total = total + bytes
    if total > BYTES_MAX and i > 1 then return {found, '1'} end
    fitness = fitness_of(id, bytes)
  end
  found[#found + 1] = {id, rows[i + 1], fitness}
end
return {found, #found == tonumber(ARGV[5]) and '1' or ''}
