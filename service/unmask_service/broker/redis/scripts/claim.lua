-- Claim a job: one whose worker has been silent for the lease, or else the next by fair queueing (fair_queue.py says
-- how; of a client without waiting jobs the turn is forgotten once it has passed).
-- ARGV: worker, lease in milliseconds.
-- Returns {id, token, attempts, evaluations left, job}, or {the id of the last job ever queued} if there is none.
local worker, lease = ARGV[1], ARGV[2]

local function silent()
  local cursor = '0-0'
  repeat
    local found = redis.call('XAUTOCLAIM', jobs, GROUP, worker, lease, cursor, 'COUNT', 1)
    if found[2][1] then return found[2][1] end
    cursor = found[1]
  until cursor == '0-0'
end

local function waiting()
  local id, client, turn, arrival
  local by_turn = redis.call('ZRANGEBYSCORE', turns, '-inf', '+inf', 'WITHSCORES')
  for i = 1, #by_turn, 2 do
    local each, its_turn = by_turn[i], tonumber(by_turn[i + 1])
    if id and its_turn > turn then break end
    local head = redis.call('ZRANGEBYSCORE', waiting_of(each), '-inf', '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
    if not head[1] then
      redis.call('ZREM', turns, each)
    elseif not id or tonumber(head[2]) < arrival then -- of equal turns the first arrival
      id, client, turn, arrival = head[1], each, its_turn, tonumber(head[2])
    end
  end
  if not id then return end
  redis.call('ZREM', waiting_of(client), id)
  local facts = redis.call('HMGET', generation_of(id), 'entry', 'cost')
  local entry = facts[1] and redis.call('XCLAIM', jobs, GROUP, worker, 0, facts[1], 'FORCE')[1]
  if not entry then return waiting() end -- somebody has deleted it
  redis.call('HSET', fair, 'now', turn)
  redis.call('ZADD', turns, turn + facts[2], client)
  return entry
end

local function last_queued()
  local facts = redis.call('XINFO', 'STREAM', jobs)
  for i = 1, #facts, 2 do
    if facts[i] == 'last-generated-id' then return facts[i + 1] end
  end
end

if not group_exists() then redis.call('XGROUP', 'CREATE', jobs, GROUP, '0', 'MKSTREAM') end

while true do
  local entry = silent() or waiting()
  if not entry then return {last_queued()} end
  local id = entry[2][2]
  local generation = generation_of(id)
  local facts = redis.call('HMGET', generation, 'job', 'state', 'attempts', 'left at claim')
  if facts[1] and not facts[2] then
    local evaluations = redis.call('HGET', left, id)
    local attempts = facts[4] == evaluations and facts[3] + 1 or 1
    local token = redis.call('HINCRBY', generation, 'token', 1)
    redis.call('HSET', generation, 'attempts', attempts, 'left at claim', evaluations)
    redis.call('HSET', owners, id, worker)
    return {id, token, attempts, evaluations, facts[1]}
  end
  redis.call('XACK', jobs, GROUP, entry[1])
  redis.call('XDEL', jobs, entry[1])
end
