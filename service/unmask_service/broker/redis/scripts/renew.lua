-- Heartbeat of a worker: it reports its capacity and renews its leases.
-- ARGV: worker, lease in milliseconds, capacity; then for each job that it holds: id, token.
-- Returns for each 'ok', 'cancelled' or 'taken over'.
local worker, lease, capacity = ARGV[1], ARGV[2], ARGV[3]
local at, results = now(), {}

redis.call('ZADD', workers, at, worker)
redis.call('HSET', capacities, worker, capacity)
for i = 4, #ARGV, 2 do
  local facts = redis.call('HMGET', generation_of(ARGV[i]), 'token', 'state', 'entry')
  local result = standing(facts, ARGV[i + 1])
  if result == 'ok' and not facts[2] then redis.call('XCLAIM', jobs, GROUP, worker, 0, facts[3], 'JUSTID') end
  results[#results + 1] = result
end

-- workers that have been silent for long are forgotten once no job is left that they had claimed
for _, silent in ipairs(redis.call('ZRANGEBYSCORE', workers, '-inf', at - 10 * lease)) do
  redis.call('HDEL', capacities, silent)
  if not group_exists() then
    redis.call('ZREM', workers, silent)
  elseif #redis.call('XPENDING', jobs, GROUP, '-', '+', 1, silent) == 0 then
    redis.call('XGROUP', 'DELCONSUMER', jobs, GROUP, silent)
    redis.call('ZREM', workers, silent)
  end
end
return results
