-- A look at the leases. ARGV: how long ours are (in ms; 0 gives them up), where
-- the last look ended, what our lists' names begin with, and how many they are.
-- Renews ours, and puts back what is in lists whose lease is over.
-- Returns how many messages those were, how many wait, and where it ended.
local leases, list = KEYS[1], KEYS[2]
local lease, at, ours, count = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
-- Redis serves no other client meanwhile: so many lists and messages in a look.
local AT_ONCE = 1000
-- Longer than a command of a process that has ended may still be on its way (ms).
local LONG_OVER = 10 * 60 * 1000
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
-- Whatever its own lease, a process that lives renews it within 3 s.
local furthest = now + math.max(lease, 10 * 1000)
local recovered = 0

local function put_back(name)
  while recovered < AT_ONCE and redis.call('LMOVE', name, list, 'LEFT', 'RIGHT') do
    recovered = recovered + 1
  end
end

for number = 1, count do
  local name = ours .. ':' .. number
  redis.call('ZADD', leases, now + lease, name)
  if lease == 0 then
    put_back(name)
  end
end

-- The clock was put back: these would be kept for as long as that was.
for _, name in ipairs(redis.call('ZRANGE', leases, '(' .. furthest, '+inf', 'BYSCORE', 'LIMIT', 0, AT_ONCE)) do
  redis.call('ZADD', leases, furthest, name)
end

-- The lists whose lease is over, a thousand a look, in turn.
local over = redis.call('ZCOUNT', leases, '-inf', now)
at = over > AT_ONCE and at % over or 0
local last = math.min(at + AT_ONCE, over) - 1
local found = over > 0 and redis.call('ZRANGE', leases, at, last, 'WITHSCORES') or {}
for i = 1, #found, 2 do
  if recovered >= AT_ONCE then
    break
  end
  local name, kind = found[i], redis.call('TYPE', found[i]).ok
  if kind == 'list' then
    put_back(name)
  end
  if kind == 'none' and tonumber(found[i + 1]) < now - LONG_OVER then
    redis.call('ZREM', leases, name)
  else
    at = at + 1
  end
end
return {recovered, redis.call('LLEN', list), at}
