// @template category=api
// @template tags=stream,sse
// @template description=Sends an event every second until the client leaves.
// @template params=event
// @description A stream of events
res.setHeader("content-type", "text/event-stream");
res.setHeader("cache-control", "no-cache");
let count = 0;
const timer = setInterval(() => res.write(`event: {{event}}\ndata: ${JSON.stringify({ count: ++count })}\n\n`), 1000);
res.on("close", () => clearInterval(timer));
res.write(": hello\n\n");
