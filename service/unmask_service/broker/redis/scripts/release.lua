-- Hand jobs back: any worker may take them over at once.
-- ARGV: worker, lease in milliseconds, '1' if no job caused the release, then for each job: id, token.
local worker, lease, blameless = ARGV[1], ARGV[2], ARGV[3] == '1'
for i = 4, #ARGV, 2 do
  local id = ARGV[i]
  local generation = generation_of(id)
  local facts = redis.call('HMGET', generation, 'token', 'state', 'entry')
  if facts[1] == ARGV[i + 1] and not facts[2] then
    redis.call('HINCRBY', generation, 'token', 1)
    redis.call('HDEL', owners, id)
    if blameless then redis.call('HINCRBY', generation, 'attempts', -1) end
    redis.call('XCLAIM', jobs, GROUP, worker, 0, facts[3], 'IDLE', lease, 'JUSTID')
  end
end
