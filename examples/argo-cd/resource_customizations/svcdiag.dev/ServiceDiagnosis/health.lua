-- Ready True: Healthy. Stalled True: Degraded. Suspended: Suspended. Anything else: Progressing.
local health = { status = "Progressing", message = "Waiting for the first verdict" }
local status = obj.status
if status == nil or status.conditions == nil then
  return health
end
-- A status of an earlier generation says nothing about this one.
if status.observedGeneration ~= nil and status.observedGeneration ~= obj.metadata.generation then
  health.message = "Waiting for the change to be judged"
  return health
end
local conditions = {}
for _, condition in ipairs(status.conditions) do
  conditions[condition.type] = condition
end
local ready, stalled = conditions["Ready"], conditions["Stalled"]
if ready == nil then
  return health
end
health.message = ready.message
if ready.status == "True" then
  health.status = "Healthy"
elseif stalled ~= nil and stalled.status == "True" then
  health.status = "Degraded"
elseif ready.status == "Unknown" and ready.reason == "Suspended" then
  health.status = "Suspended"
end
return health
