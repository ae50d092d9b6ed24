-- A worker is done with the message that it took: ARGV[2] says how.
--   done    it is in the database
--   back    nothing is wrong with it: it is the next again
--   failed  it comes last, until it has failed ARGV[3] times; then it is dead
-- Where the worker's list does not have it any more, its lease had run out and
-- the message is somebody else's.
-- Returns 1 where the message went to the dead.
local mine, list, failures, dead = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local message, how, most = ARGV[1], ARGV[2], tonumber(ARGV[3])
local died = 0
if redis.call('LREM', mine, 1, message) == 1 then
  if how == 'back' then
    redis.call('RPUSH', list, message)
  elseif how == 'failed' and redis.call('HINCRBY', failures, message, 1) < most then
    redis.call('LPUSH', list, message)
  else
    redis.call('HDEL', failures, message)
    if how == 'failed' then
      redis.call('LPUSH', dead, message)
      died = 1
    end
  end
end
return died
