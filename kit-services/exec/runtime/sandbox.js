// Code that somebody else wrote, run once: no permissions, and a process of its own around it. One
// line comes in, one goes out. It waits started, so that only the code itself is waited for.
const lines = Deno.stdin.readable.pipeThrough(new TextDecoderStream());
let text = "";
for await (const part of lines) {
  text += part;
  if (text.endsWith("\n")) break;
}
const { code, globals } = JSON.parse(text);
const write = Deno.stdout.writeSync.bind(Deno.stdout);
const encoder = new TextEncoder();
const stringify = JSON.stringify;
const exit = Deno.exit;

function say(value) {
  let bytes = encoder.encode(stringify(value) + "\n");
  while (bytes.length > 0) bytes = bytes.subarray(write(bytes));
  exit(0);
}

const lineOf = (error) => (error instanceof Error ? `${error.name}: ${error.message}` : String(error));
globalThis.addEventListener("unhandledrejection", (event) => {
  event.preventDefault();
  say({ ok: false, error: lineOf(event.reason) });
});
globalThis.addEventListener("error", (event) => {
  event.preventDefault();
  say({ ok: false, error: lineOf(event.error ?? event.message) });
});

const logs = [];
for (const level of ["log", "info", "warn", "error", "debug"])
  console[level] = (...words) => logs.length < 100 && logs.push(words.map((word) => (typeof word === "string" ? word : Deno.inspect(word))).join(" ").slice(0, 2000));

try {
  const { stripTypeScriptTypes } = await import("node:module");
  let plain = code;
  try {
    plain = stripTypeScriptTypes(code, { mode: "transform" });
  } catch {
    // not TypeScript, or wrong: the engine says which
  }
  const names = Object.keys(globals);
  const Code = Object.getPrototypeOf(async function () {}).constructor;
  let run;
  try {
    run = new Code(...names, `return (${plain.trim().replace(/;$/, "")}\n)`);
  } catch {
    run = new Code(...names, plain);
  }
  let value = await run(...names.map((name) => globals[name]));
  if (typeof value === "function") value = await value(globals.input ?? globals);
  say({ ok: true, value: value ?? null, logs });
} catch (error) {
  say({ ok: false, error: lineOf(error), logs });
}
