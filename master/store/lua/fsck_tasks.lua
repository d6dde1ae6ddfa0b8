-- fsck_tasks: prove for some tasks of a search that state and indexes agree. Reads only.
--
-- @include lib/base.lua lib/queue.lua
-- @flags   no-writes
-- KEYS[1]  the shard's clock
-- ARGV[1]  search
-- ARGV[2]  submission number to start after
-- Replies  [next submission number or '', tasks checked, [violation, …], payload, class and code (or '') of each as a flat
--          list]
local STEP = 100

local search = ARGV[1]
local violations = {}

local function violation(id, text)
  violations[#violations + 1] = 'task ' .. id .. ' of search ' .. search .. ': ' .. text
end

local function check(id)
  local v = redis.call('HMGET', key('task', id), 'state', 'search', 'class', 'key', 'payload', 'token', 'attempts',
    'max_attempts', 'losses', 'max_losses', 'ooms', 'max_ooms', 'code')
  local state = v[1]
  if not state then return violation(id, 'is a member but has no record') end
  if v[2] ~= search then violation(id, 'says it belongs to ' .. v[2]) end
  local places = {
    QUEUED = redis.call('ZSCORE', ready_key(search, v[3]), id),
    SCHEDULED = redis.call('ZSCORE', key('scheduled'), id),
    LEASED = redis.call('ZSCORE', key('leases'), id),
  }
  for _, ended in ipairs({'SUCCEEDED', 'FAILED', 'CANCELLED'}) do
    places[ended] = redis.call('ZSCORE', key('ended', search .. ':' .. ended), id)
  end
  if not places[state] then violation(id, 'is ' .. state .. ' but not in that index') end
  for place, score in pairs(places) do
    if score and place ~= state then violation(id, 'is ' .. state .. ' but also in the index of ' .. place) end
  end
  if redis.call('HGET', key('keys', search), v[4]) ~= id then violation(id, 'is not what its key names') end
  if redis.call('EXISTS', key('payload', v[5])) == 0 then violation(id, 'has no payload') end
  if v[13] and redis.call('EXISTS', key('code', v[13])) == 0 then violation(id, 'names code that is not kept') end
  if (state == 'LEASED') ~= (v[6] ~= nil and v[6] ~= false and v[6] ~= '') then
    violation(id, 'is ' .. state .. ' and its lease token does not fit that')
  end
  if tonumber(v[7]) > tonumber(v[8]) then violation(id, 'burned more attempts than its budget') end
  if tonumber(v[11]) > tonumber(v[12] or v[8]) then violation(id, 'burned more out-of-memory ends than its budget') end
  if tonumber(v[9]) > tonumber(v[10]) then violation(id, 'burned more losses than its budget') end
  if state == 'SUCCEEDED' and redis.call('EXISTS', key('outcome', id)) == 0 then violation(id, 'has no result') end
end

local rows = redis.call('ZRANGEBYSCORE', key('members', search), '(' .. ARGV[2], '+inf', 'WITHSCORES', 'LIMIT', 0, STEP)
local contents = {}
for i = 1, #rows, 2 do
  check(rows[i])
  for _, content in ipairs(redis.call('HMGET', key('task', rows[i]), 'payload', 'class', 'code')) do
    contents[#contents + 1] = content or ''
  end
end
local last = #rows == 2 * STEP and rows[#rows] or ''
return {last, #rows / 2, violations, contents}
