-- Posts the envelopes of $FEED once each, from number $SKIP on, at most $COUNT; with $PAUSE each connection waits so many milliseconds
-- between. They are made before the clock runs, for what is measured shares the machine with this; several loads begin together, at the
-- second $AT of the Unix epoch, or one would be measured while another still reads.
local requests, at = {}, 0
function init()
  local headers, number = { ["Content-Type"] = "text/plain; charset=UTF-8" }, 0
  local skip, count = tonumber(os.getenv("SKIP") or "0"), tonumber(os.getenv("COUNT") or "1000000")
  for line in io.lines(os.getenv("FEED") .. "/envelopes.ndjson") do
    number = number + 1
    if number > skip then requests[#requests + 1] = wrk.format("POST", "/sns", headers, line) end
    if #requests == count then break end
  end
  assert(#requests > 0, "SKIP is past the last of the envelopes")
  local start = tonumber(os.getenv("AT") or "0")
  assert(start == 0 or os.time() < start, "the envelopes were read too late")
  while os.time() < start do os.execute("sleep 0.01") end
end
function request() at = at + 1; return requests[(at - 1) % #requests + 1] end
if os.getenv("PAUSE") then function delay() return tonumber(os.getenv("PAUSE")) end end
