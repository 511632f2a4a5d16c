-- End a job that has not ended, whoever holds it.
-- ARGV: id, the entry that says so, keep in milliseconds.
-- Returns the evaluations saved if no worker had claimed it, else ''.
local id, entry, keep = ARGV[1], ARGV[2], ARGV[3]
local generation, log, saved = generation_of(id), log_of(id), ''
local facts = redis.call('HMGET', generation, 'token', 'state')
if facts[1] and not facts[2] then
  if redis.call('HEXISTS', owners, id) == 0 then saved = redis.call('HGET', left, id) end
  redis.call('XADD', log, string.format('%d-0', redis.call('XLEN', log) + 1), 'e', entry)
  finish(id, 'cancelled', keep)
end
if facts[1] then -- it may have ended before, to be kept longer
  redis.call('PEXPIRE', generation, keep)
  redis.call('PEXPIRE', log, keep)
end
return saved
