-- Asks in turn for a suppressed address and for an unknown one.
local at = 0
function request() at = at + 1; return wrk.format("GET", "/suppressed/" .. (at % 2 == 0 and "known" or "nobody") .. (at * 7919) % 1000000 .. "@example.com") end
