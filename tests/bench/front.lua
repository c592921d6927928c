-- wrk's part for front_scale: the requests of a plan in turn. The plan is a Lua table: heads; pause, ms before each.

local threads = {}
local turn = 0

function setup(thread)
    table.insert(threads, thread)
end

function init(args)
    plan = dofile(args[1])
    wrong = 0
end

function delay()
    return plan.pause
end

function request()
    turn = turn % #plan.heads + 1
    return plan.heads[turn]
end

function response(status, headers, body)
    if status ~= 200 then
        wrong = wrong + 1
    end
end

function done(summary, latency)
    local failed = 0
    for _, thread in ipairs(threads) do
        failed = failed + thread:get("wrong")
    end
    local errors = summary.errors
    io.write(string.format('\n{"requests": %d, "seconds": %.6f, "p50": %d, "p99": %d, "failed": %d}\n',
        summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99),
        failed + errors.connect + errors.read + errors.write + errors.timeout))
end
