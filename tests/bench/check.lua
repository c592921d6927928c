-- wrk's part: send the requests of a plan in turn, and check every answer: status, length, and that it is the
-- visitor's own, from a process that may give it. The plan is a Lua table that load.py wrote.

local threads = {}
local turn = 0

function setup(thread)
    table.insert(threads, thread)
end

function init(args)
    plan = dofile(args[1])
    wrong = 0
    example = ""
    requests = {}
    for number, head in ipairs(plan.heads) do
        requests[number] = head .. string.rep("u", plan.body)
    end
end

function request()
    turn = turn % #requests + 1
    return requests[turn]
end

function response(status, headers, body)
    local session, backend, known, received = body:match("^(%w+) (%d+) (%w+) (%d+) ")
    local who = plan.first and "" or session
    if status ~= 200 or #body ~= plan.length or tonumber(received) ~= plan.body
        or not plan.allowed[who] or not plan.allowed[who][backend]
        or (plan.first and (session ~= "nobody") ~= (known == "known"))
        or (plan.sticky and not plan.first and known ~= "known") then
        wrong = wrong + 1
        if wrong == 1 then
            example = status .. ", " .. #body .. " bytes: " .. body:sub(1, 60):gsub("[^%w ]", "?")
        end
    end
end

function done(summary, latency)
    local failed, first = 0, ""
    for _, thread in ipairs(threads) do
        failed = failed + thread:get("wrong")
        first = thread:get("example")
    end
    local errors = summary.errors
    io.write(string.format(
        '\n{"requests": %d, "seconds": %.6f, "p50": %d, "p99": %d, "wrong": %d, "example": "%s", '
        .. '"broken": {"connect": %d, "read": %d, "write": %d, "timeout": %d}}\n',
        summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99), failed, first,
        errors.connect, errors.read, errors.write, errors.timeout))
end
