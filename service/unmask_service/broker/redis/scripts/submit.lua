-- Queue a job unless the queue is full, or its idempotency key belongs to another job.
-- ARGV: id, job, work, evaluations, most requests, most evaluations ('' for no bound), key ('' for none), digest.
-- Returns {'queued' | 'known' | 'reused' | 'requests' | 'evaluations', id or number}.
local id, job, work, evaluations = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local most_requests, most_evaluations = tonumber(ARGV[5]), tonumber(ARGV[6])
local key, digest = ARGV[7], ARGV[8]
local generation = generation_of(id)

if redis.call('EXISTS', generation) == 1 then return {'queued', id} end -- this very call again: its reply was lost
if key ~= '' then
  local known = redis.call('HMGET', key, 'id', 'digest')
  if known[1] and redis.call('EXISTS', generation_of(known[1])) == 1 then
    return known[2] == digest and {'known', known[1]} or {'reused', ''}
  end
end
local requests = redis.call('HLEN', open)
if requests >= most_requests then return {'requests', requests} end
if most_evaluations then
  local at_hand = 0
  for _, each in ipairs(redis.call('HVALS', left)) do at_hand = at_hand + tonumber(each) end
  if at_hand > 0 and at_hand + evaluations > most_evaluations then return {'evaluations', at_hand} end
end

local entry = redis.call('XADD', jobs, '*', 'id', id)
redis.call('HSET', generation, 'job', job, 'entry', entry, 'token', 0, 'attempts', 0)
redis.call('HSET', open, id, work)
redis.call('HSET', left, id, evaluations)
redis.call('ZADD', attended, now(), id)
if key ~= '' then
  redis.call('HSET', generation, 'key', key)
  redis.call('HSET', key, 'id', id, 'digest', digest)
end
return {'queued', id}
