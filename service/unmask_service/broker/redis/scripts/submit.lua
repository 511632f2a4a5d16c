-- Queue the jobs of a call, unless the queue is full, or the call's idempotency key belongs to another.
-- ARGV: most requests, most evaluations ('' for no bound), key ('' for none), digest; then for each job its id, job,
-- work, evaluations. The key belongs to the first job.
-- Returns {'queued' | 'known' | 'reused' | 'requests' | 'evaluations', id or number}.
local most_requests, most_evaluations = tonumber(ARGV[1]), tonumber(ARGV[2])
local key, digest, first = ARGV[3], ARGV[4], ARGV[5]

if redis.call('EXISTS', generation_of(first)) == 1 then return {'queued', first} end -- this very call: its reply was lost
if key ~= '' then
  local known = redis.call('HMGET', key, 'id', 'digest')
  if known[1] and redis.call('EXISTS', generation_of(known[1])) == 1 then
    return known[2] == digest and {'known', known[1]} or {'reused', ''}
  end
end
local requests = redis.call('HLEN', open)
if requests + (#ARGV - 4) / 4 > most_requests then return {'requests', requests} end
if most_evaluations then
  local at_hand, evaluations = 0, 0
  for _, each in ipairs(redis.call('HVALS', left)) do at_hand = at_hand + tonumber(each) end
  for place = 5, #ARGV, 4 do evaluations = evaluations + tonumber(ARGV[place + 3]) end
  if at_hand > 0 and at_hand + evaluations > most_evaluations then return {'evaluations', at_hand} end
end

for place = 5, #ARGV, 4 do
  local id, job, work, evaluations = unpack(ARGV, place, place + 3)
  local entry = redis.call('XADD', jobs, '*', 'id', id)
  redis.call('HSET', generation_of(id), 'job', job, 'entry', entry, 'token', 0, 'attempts', 0)
  redis.call('HSET', open, id, work)
  redis.call('HSET', left, id, evaluations)
  redis.call('ZADD', attended, now(), id)
end
if key ~= '' then
  redis.call('HSET', generation_of(first), 'key', key)
  redis.call('HSET', key, 'id', first, 'digest', digest)
end
return {'queued', first}
