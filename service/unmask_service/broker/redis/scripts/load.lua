-- The work in the queue. ARGV: lease in milliseconds.
-- Returns {id, work, …}, {id, evaluations left, …}, {ids that are claimed}, {capacities of the workers alive},
-- {client, turn, …}, the turn of the last claim.
local alive = redis.call('ZRANGEBYSCORE', workers, now() - ARGV[1], '+inf')
local known = {}
for _, worker in ipairs(alive) do
  known[#known + 1] = redis.call('HGET', capacities, worker) or nil
end
return {
  redis.call('HGETALL', open), redis.call('HGETALL', left), redis.call('HKEYS', owners), known,
  redis.call('ZRANGEBYSCORE', turns, '-inf', '+inf', 'WITHSCORES'), redis.call('HGET', fair, 'now'),
}
