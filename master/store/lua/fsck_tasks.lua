-- fsck_tasks: prove for some tasks of a search that state and indexes agree. Reads only.
--
-- @include lib/base.lua lib/queue.lua
-- @flags   no-writes
-- KEYS[1]  the shard's clock
-- ARGV[1]  search
-- ARGV[2]  submission number to start after
-- Replies  [next submission number or '', tasks checked, [violation, …], id, payload, class and code (or '') of each as a
--          flat list]
local STEP = 100

local search = ARGV[1]
local violations = {}

local function violation(id, text)
  violations[#violations + 1] = 'task ' .. id .. ' of search ' .. search .. ': ' .. text
end

local function within(id, what, burned, budget)
  if not tonumber(burned) or not tonumber(budget) then return violation(id, 'has no number of ' .. what) end
  if tonumber(burned) > tonumber(budget) then violation(id, 'burned more ' .. what .. ' than its budget') end
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
  within(id, 'attempts', v[7], v[8])
  within(id, 'out-of-memory ends', v[11], v[12] or v[8])
  within(id, 'losses', v[9], v[10])
  if state == 'SUCCEEDED' then
    local outcome = redis.call('GET', key('outcome', id))
    if not outcome then violation(id, 'has no result') end
    if outcome and not is_json(outcome, '{') then violation(id, "has a result that can't be read; requeue it") end
  end
  for _, record in ipairs(redis.call('LRANGE', key('attempts', id), 0, -1)) do
    if not is_json(record, '[') then violation(id, "has an attempt record that can't be read") end
  end
end

local rows = redis.call('ZRANGEBYSCORE', key('members', search), '(' .. ARGV[2], '+inf', 'WITHSCORES', 'LIMIT', 0, STEP)
local contents = {}
for i = 1, #rows, 2 do
  check(rows[i])
  contents[#contents + 1] = rows[i]
  for _, content in ipairs(redis.call('HMGET', key('task', rows[i]), 'payload', 'class', 'code')) do
    contents[#contents + 1] = content or ''
  end
end
local last = #rows == 2 * STEP and rows[#rows] or ''
return {last, #rows / 2, violations, contents}
