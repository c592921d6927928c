-- wrk's part: requests with a ticket of the right shape each, no two alike, that nobody ever gave out.

local shape = "GET /plain HTTP/1.1\r\nHost: x\r\nCookie: __PRT__=0.%d.%s\r\n\r\n"
local number = os.time() * 10 ^ 6
local tail = string.rep("x", 43)

function request()
    number = number + 1
    return string.format(shape, number, tail)
end

function done(summary)
    io.write(string.format("%d answered, %d of them not 200, %d lost\n", summary.requests, summary.errors.status,
        summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout))
end
