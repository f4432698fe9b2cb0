-- What benchmarks/clients/closed_loop.py tells wrk: the one request that it sends again and again, and what
-- it says at the end. Arguments: the file of the body, and what is accepted.
function init(arguments)
   local file = assert(io.open(arguments[1], "rb"))
   wrk.method = "POST"
   wrk.body = file:read("*a")
   file:close()
   wrk.headers["Content-Type"] = "application/octet-stream"
   wrk.headers["Accept"] = arguments[2]
end

function done(summary, latency)
   local errors = summary.errors
   io.write(string.format(
      '\n{"seconds": %.6f, "answered": %d, "refused": %d, "lost": %d, "p50_ms": %.3f, "p99_ms": %.3f}\n',
      summary.duration / 1e6,
      summary.requests,
      errors.status,
      errors.connect + errors.read + errors.write + errors.timeout,
      latency:percentile(50) / 1e3,
      latency:percentile(99) / 1e3
   ))
end
