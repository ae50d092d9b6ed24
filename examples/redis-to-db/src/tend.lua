-- Renews the leases of the lists ARGV[2 ...] for ARGV[1] milliseconds (0 gives
-- them up) and puts back what is in lists whose lease is over.
-- Returns how many messages those were, and how many wait.
local leases, list = KEYS[1], KEYS[2]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lease = tonumber(ARGV[1])
for i = 2, #ARGV do
  redis.call('ZADD', leases, now + lease, ARGV[i])
end
local recovered = 0
for _, name in ipairs(redis.call('ZRANGE', leases, '-inf', now, 'BYSCORE')) do
  while redis.call('LMOVE', name, list, 'LEFT', 'RIGHT') do
    recovered = recovered + 1
  end
end
-- A process that was only asleep may still put a message into its list before
-- it renews the lease: such lists are looked at for a day.
redis.call('ZREMRANGEBYSCORE', leases, '-inf', now - 24 * 3600 * 1000)
if lease == 0 then
  for i = 2, #ARGV do
    redis.call('ZREM', leases, ARGV[i])
  end
end
return {recovered, redis.call('LLEN', list)}
