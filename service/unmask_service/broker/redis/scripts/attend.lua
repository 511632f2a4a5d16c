-- Report that clients follow these jobs. ARGV: orphan in milliseconds, ids.
-- Returns {those of them that are unknown}, {jobs that no client has followed or looked up for so long}.
local at, unknown = now(), {}
for i = 2, #ARGV do
  redis.call('ZADD', attended, 'XX', at, ARGV[i])
  if redis.call('EXISTS', generation_of(ARGV[i])) == 0 then unknown[#unknown + 1] = ARGV[i] end
end
return {unknown, redis.call('ZRANGEBYSCORE', attended, '-inf', at - ARGV[1])}
