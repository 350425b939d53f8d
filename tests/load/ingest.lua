-- Posts the envelopes of $FEED once each, from number $SKIP on; with $PAUSE each connection waits so many milliseconds between.
function init() lines, at = {}, tonumber(os.getenv("SKIP") or "0")
  for line in io.lines(os.getenv("FEED") .. "/envelopes.ndjson") do lines[#lines + 1] = line end end
local headers = { ["Content-Type"] = "text/plain; charset=UTF-8" }
function request() at = at + 1; return wrk.format("POST", "/sns", headers, lines[(at - 1) % #lines + 1]) end
if os.getenv("PAUSE") then function delay() return tonumber(os.getenv("PAUSE")) end end
