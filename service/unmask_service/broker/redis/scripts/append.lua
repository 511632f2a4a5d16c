-- Append entries to logs under their positions, each once, for the holder of the newest fencing token.
-- ARGV: keep in milliseconds; then for each job: id, token, position of the first entry, evaluations left after them,
-- state after them ('' if it has not ended), number of entries, entries.
-- Returns for each 'ok', 'cancelled', 'taken over', or, if entries before these are missing, the log's length.
local keep = ARGV[1]

local function append(id, token, first, evaluations, state, from, count)
  local facts = redis.call('HMGET', generation_of(id), 'token', 'state')
  local result = standing(facts, token)
  if facts[2] or result ~= 'ok' then return result end -- it may have ended by this very call: its reply was lost
  local log = log_of(id)
  local length = redis.call('XLEN', log)
  if length + 1 < first then return length end
  for n = length + 2 - first, count do
    redis.call('XADD', log, string.format('%d-0', first + n - 1), 'e', ARGV[from + n - 1])
  end
  redis.call('HSET', left, id, evaluations)
  if state ~= '' then finish(id, state, keep) end
  return 'ok'
end

local results, i = {}, 2
while i <= #ARGV do
  local count = tonumber(ARGV[i + 5])
  results[#results + 1] =
    append(ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), ARGV[i + 3], ARGV[i + 4], i + 6, count)
  i = i + 6 + count
end
return results
