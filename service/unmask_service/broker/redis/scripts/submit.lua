-- Queue the jobs of a call, unless the queue is full, or the call's idempotency key belongs to another.
-- ARGV: most requests, most evaluations ('' for no bound), key ('' for none), digest; client, most requests of its own
-- ('' for no bound), milliseconds of its quota that an evaluation takes (0 for no bound); then for each job its id, job,
-- work, evaluations, cost in fair queueing. The key belongs to the first job.
-- Returns {'queued' | 'known' | 'reused' | 'requests' | 'evaluations' | 'quota of requests' | 'quota of evaluations',
-- id, number or milliseconds}.
local most_requests, most_evaluations = tonumber(ARGV[1]), tonumber(ARGV[2])
local key, digest, client, own_requests, price = ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
local FIRST, FIELDS, MINUTE = 8, 5, 60000
local first, count = ARGV[FIRST], (#ARGV - FIRST + 1) / FIELDS

if redis.call('EXISTS', generation_of(first)) == 1 then return {'queued', first} end -- this very call: its reply was lost
if key ~= '' then
  local known = redis.call('HMGET', key, 'id', 'digest')
  if known[1] and redis.call('EXISTS', generation_of(known[1])) == 1 then
    return known[2] == digest and {'known', known[1]} or {'reused', ''}
  end
end
local evaluations = 0
for place = FIRST, #ARGV, FIELDS do evaluations = evaluations + tonumber(ARGV[place + 3]) end
if own_requests then
  local own = redis.call('SCARD', requests_of(client))
  if own + count > own_requests then return {'quota of requests', own} end
end
if price > 0 and evaluations > 0 then -- a leaky bucket that holds a minute's evaluations; more need it empty
  local wait = owed_by(client) + math.min(evaluations * price, MINUTE) - MINUTE
  if wait > 0 then return {'quota of evaluations', math.ceil(wait)} end
end
local requests = redis.call('HLEN', open)
if requests + count > most_requests then return {'requests', requests} end
if most_evaluations then
  local at_hand = 0
  for _, each in ipairs(redis.call('HVALS', left)) do at_hand = at_hand + tonumber(each) end
  if at_hand > 0 and at_hand + evaluations > most_evaluations then return {'evaluations', at_hand} end
end

spend(client, evaluations * price)
if redis.call('EXISTS', waiting_of(client)) == 0 then -- its turn is now at the earliest: it saves none up
  local turn = redis.call('ZSCORE', turns, client) or 0
  redis.call('ZADD', turns, math.max(turn, redis.call('HGET', fair, 'now') or 0), client)
end
for place = FIRST, #ARGV, FIELDS do
  local id, job, work, planned, cost = unpack(ARGV, place, place + FIELDS - 1)
  local entry = redis.call('XADD', jobs, '*', 'id', id)
  local generation = generation_of(id)
  redis.call('HSET', generation, 'job', job, 'entry', entry, 'token', 0, 'attempts', 0)
  redis.call('HSET', generation, 'client', client, 'cost', cost, 'price', price)
  redis.call('ZADD', waiting_of(client), redis.call('HINCRBY', fair, 'arrivals', 1), id)
  redis.call('SADD', requests_of(client), id)
  redis.call('HSET', open, id, work)
  redis.call('HSET', left, id, planned)
  redis.call('ZADD', attended, now(), id)
end
if key ~= '' then
  redis.call('HSET', generation_of(first), 'key', key)
  redis.call('HSET', key, 'id', first, 'digest', digest)
end
return {'queued', first}
