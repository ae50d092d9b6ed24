-- A worker is done with the message that it took: ARGV[2] says how.
--   done    it is in the database
--   back    nothing is wrong with it: it is the next again
--   last    perhaps nothing is wrong with it: it comes last
--   failed  it comes last, until it has failed ARGV[3] times; then it is dead
-- Returns 1 where the message went to the dead, and 2 where it is not in the
-- worker's list: it was not moved now.
--
-- A script is no transaction: where Redis refuses one command, what the earlier
-- ones did stays done, and it is run again. So the message is never taken out
-- first: LMOVE moves it or does nothing, and what comes before it changes nothing.
local mine, list, failures, dead = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local message, how, most = ARGV[1], ARGV[2], tonumber(ARGV[3])

if how == 'done' then
  redis.call('LREM', mine, 1, message)
  redis.call('HDEL', failures, message)
  return 0
end

-- The worker's list has it at an end, beside what an answer that was lost left
-- there. Where it does not, the lease had run out and the message is another
-- process's; or Redis lost it; or this was run before, and the answer was lost.
local from = 'LEFT'
if redis.call('LINDEX', mine, 0) ~= message then
  if redis.call('LINDEX', mine, -1) ~= message then
    return 2
  end
  from = 'RIGHT'
end
if how == 'back' then
  redis.call('LMOVE', mine, list, from, 'RIGHT')
  return 0
end
-- By 0: a failure counts once, when the message has moved.
if how == 'last' or redis.call('HINCRBY', failures, message, 0) + 1 < most then
  redis.call('LMOVE', mine, list, from, 'LEFT')
  if how == 'failed' then
    redis.call('HINCRBY', failures, message, 1)
  end
  return 0
end
redis.call('LMOVE', mine, dead, from, 'LEFT')
redis.call('HDEL', failures, message)
return 1
