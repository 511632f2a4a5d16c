-- A worker shuts down in good order.
-- ARGV: worker.
redis.call('HDEL', capacities, ARGV[1])
redis.call('ZADD', workers, 0, ARGV[1])
