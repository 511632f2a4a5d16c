-- Look up a job; this keeps it from becoming an orphan.
-- ARGV: id.
-- Returns {job, state, evaluations left, entries of the log}; nothing if it is unknown.
local id = ARGV[1]
local facts = redis.call('HMGET', generation_of(id), 'job', 'state', 'left')
if not facts[1] then return {} end
local state, evaluations = facts[2], facts[3]
if not state then
  state = redis.call('HEXISTS', owners, id) == 1 and 'running' or 'waiting'
  evaluations = redis.call('HGET', left, id)
  redis.call('ZADD', attended, 'XX', now(), id)
end
return {facts[1], state, evaluations, redis.call('XLEN', log_of(id))}
