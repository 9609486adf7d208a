-- HYGIENE.STATS as redis_exporter takes it (its option --script): name, value,
-- name, value, all strings. Runs under EVAL and EVAL_RO, on replicas too, in
-- microseconds: STATS answers from memory. The user needs +eval or +eval_ro,
-- and +hygiene.stats.
--
-- It must not fail: the exporter would call the whole server down.
local stats = redis.pcall('HYGIENE.STATS')
if stats.err then
  return {'hygiene_up', '0'}
end

local told = {'hygiene_up', '1'}
for i = 1, #stats, 2 do
  local name, value = stats[i], stats[i + 1]
  -- What is not known is -1, and absent in Prometheus. Each of the two words
  -- (verdict, beat_state) has its number beside it.
  if type(value) == 'number' and value ~= -1 then
    told[#told + 1] = 'hygiene_' .. name
    -- tostring() would write big numbers with an exponent and 14 digits.
    told[#told + 1] = string.format('%.0f', value)
  end
end
return told
