-- What all scripts share. KEYS[1] is the stream of jobs; the other keys' names begin as its name does (format.py
-- lists them) and carry the model in braces, so that a Redis Cluster keeps them together.
local jobs = KEYS[1]
local base = string.sub(jobs, 1, -5)
local open, left, owners = base .. 'open', base .. 'left', base .. 'owners'
local attended, workers, capacities = base .. 'attended', base .. 'workers', base .. 'capacities'
local turns, fair = base .. 'turns', base .. 'fair'
local GROUP = 'workers'

local function generation_of(id) return base .. 'generation:' .. id end

local function log_of(id) return base .. 'log:' .. id end

local function waiting_of(client) return base .. 'waiting:' .. client end

local function requests_of(client) return base .. 'requests:' .. client end

local function group_exists() return redis.call('EXISTS', jobs) == 1 and #redis.call('XINFO', 'GROUPS', jobs) > 0 end

-- the answer to a worker about a job: `facts` are the job's token and state
local function standing(facts, token)
  if facts[1] and facts[1] ~= token then return 'taken over' end -- whatever its state: another worker counts it
  if not facts[1] or facts[2] == 'cancelled' then return 'cancelled' end
  return 'ok'
end

-- Redis' own clock in milliseconds: those of other machines may differ
local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- milliseconds until a client's quota of evaluations is whole again
local function owed_by(client)
  return math.max(0, tonumber(redis.call('HGET', base .. 'whole:' .. client, 'at') or 0) - now())
end

-- count evaluations of so many milliseconds of a client's quota, or give them back where they are negative
local function spend(client, milliseconds)
  if milliseconds == 0 then return end
  local owed, key = math.max(0, owed_by(client) + milliseconds), base .. 'whole:' .. client
  redis.call('HSET', key, 'at', now() + owed)
  redis.call('PEXPIRE', key, math.ceil(owed)) -- at once if nothing is owed
end

-- end a job: it leaves the queue and the load, and can be read for `keep` milliseconds
local function finish(id, state, keep)
  local generation = generation_of(id)
  local facts = redis.call('HMGET', generation, 'entry', 'key', 'client', 'price')
  local evaluations = redis.call('HGET', left, id) or 0
  redis.call('XACK', jobs, GROUP, facts[1])
  redis.call('XDEL', jobs, facts[1])
  redis.call('ZREM', waiting_of(facts[3]), id)
  redis.call('SREM', requests_of(facts[3]), id)
  spend(facts[3], -evaluations * facts[4])
  redis.call('HSET', generation, 'state', state, 'left', evaluations)
  redis.call('HDEL', open, id)
  redis.call('HDEL', left, id)
  redis.call('HDEL', owners, id)
  redis.call('ZREM', attended, id)
  redis.call('PEXPIRE', generation, keep)
  redis.call('PEXPIRE', log_of(id), keep)
  if facts[2] then redis.call('PEXPIRE', facts[2], keep) end
end
