// Runs one script: the program of a script's own process. The kit starts it, tells it over the
// control socket what to load, and sends requests to the socket it then serves.
import { AsyncLocalStorage } from "node:async_hooks";
import { createRequire, isBuiltin } from "node:module";
import * as nodeFs from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { format } from "node:util";
import { Buffer } from "node:buffer";

const [CONTROL, PARTS] = Deno.args;
const { compile } = await import(pathToFileURL(join(PARTS, "compile.js")).href);
const { bindings } = await import(pathToFileURL(join(PARTS, "ai.js")).href);

/** Text of a log line; more is cut. */
const LINE_CHARS = 8192;
/** Log lines that wait for the kit; more are dropped and counted. */
const LINES_WAITING = 2000;
/** The state shared by a deployment, as JSON text. */
const SHARED_BYTES = 4 << 20;
/** What a request may wait for news of the shared state. */
const SHARED_WAIT_MS = 1000;
/** Rooms of one WebSocket script. */
const ROOMS = 1024;

// ---- the kit ----------------------------------------------------------------------------------

const control = await Deno.connect({ transport: "unix", path: CONTROL });
const encoder = new TextEncoder();
let outbox = [];
let linesWaiting = 0;
let dropped = 0;
let sending = false;

function tell(message) {
  if (message.t === "log") {
    if (linesWaiting >= LINES_WAITING) {
      dropped++;
      return;
    }
    linesWaiting++;
  }
  outbox.push(message);
  if (!sending) send();
}

async function send() {
  sending = true;
  while (outbox.length > 0) {
    const batch = outbox;
    outbox = [];
    linesWaiting = 0;
    if (dropped > 0) {
      batch.push({ t: "log", level: "warn", text: `${dropped} log lines were dropped: they came faster than they could be written` });
      dropped = 0;
    }
    let bytes = encoder.encode(batch.map((one) => JSON.stringify(one)).join("\n") + "\n");
    while (bytes.length > 0) bytes = bytes.subarray(await control.write(bytes));
  }
  sending = false;
}

const asked = new Map();
let nextAsk = 1;

/** Ask the kit for something that only it can do. */
function ask(what, more) {
  return new Promise((resolve, reject) => {
    const id = nextAsk++;
    asked.set(id, { resolve, reject });
    tell({ t: "ask", id, what, ...more });
  });
}

async function listen() {
  let rest = "";
  const decoder = new TextDecoder();
  for await (const part of control.readable) {
    rest += decoder.decode(part, { stream: true });
    let end;
    while ((end = rest.indexOf("\n")) >= 0) {
      const line = rest.slice(0, end);
      rest = rest.slice(end + 1);
      if (line) hear(JSON.parse(line));
    }
  }
  Deno.exit(0); // the kit is gone
}

function hear(message) {
  switch (message.t) {
    case "load":
      load(message).catch((error) => tell({ t: "failed", ...described(error) }));
      break;
    case "shared":
      sharedNews(message);
      break;
    case "ack":
      sharedAck(message.seq);
      break;
    case "ping":
      tell({ t: "pong", id: message.id });
      break;
    case "reply": {
      const waiter = asked.get(message.id);
      asked.delete(message.id);
      if (!waiter) break;
      if (message.ok) waiter.resolve(message.value);
      else waiter.reject(Object.assign(new Error(message.error), { code: message.code }));
      break;
    }
  }
}

// ---- words of scripts -------------------------------------------------------------------------

const current = new AsyncLocalStorage();

function log(level, words) {
  let text;
  try {
    text = format(...words);
  } catch (error) {
    text = `(a value that cannot be shown: ${error})`;
  }
  if (text.length > LINE_CHARS) text = text.slice(0, LINE_CHARS) + "…";
  tell({ t: "log", level, text, id: current.getStore()?.id });
}

for (const [name, level] of Object.entries({ debug: "debug", log: "info", info: "info", warn: "warn", error: "error", trace: "debug", dir: "info" }))
  console[name] = (...words) => log(level, words);

globalThis.addEventListener("unhandledrejection", (event) => {
  event.preventDefault();
  log("error", ["a promise was rejected and nobody handled it:", shown(event.reason)]);
});
globalThis.addEventListener("error", (event) => {
  event.preventDefault();
  log("error", ["an error that nothing caught:", shown(event.error ?? event.message)]);
});

function shown(error) {
  return error instanceof Error ? locate(error.stack ?? String(error)) : error;
}

let places = [];
/** Stack lines name the script, not the file it was compiled to. */
function locate(text) {
  for (const [made, own] of places) text = text.replaceAll(made, own);
  return text;
}

function described(error) {
  if (!(error instanceof Error)) return { message: format(error), stack: "" };
  return { message: locate(error.message || error.name), name: error.name, stack: locate(error.stack ?? "") };
}

// ---- what scripts share -----------------------------------------------------------------------

/** Key → value, as scripts see it. */
const sharedValues = new Map();
/** Key → JSON text that the kit has. */
const sharedKnown = new Map();
const touched = new Set();
let sharedVersion = 0;
let sharedSeq = 0;
let acked = 0;
let ackWaiters = [];
let versionWaiters = [];

const shared = new Proxy(Object.create(null), {
  get(_, key) {
    if (typeof key === "symbol") return undefined;
    const value = sharedValues.get(key);
    if (typeof value === "object" && value !== null) touch(key);
    return value;
  },
  set(_, key, value) {
    if (typeof key === "symbol") return false;
    sharedValues.set(key, value);
    touch(key);
    return true;
  },
  deleteProperty(_, key) {
    sharedValues.delete(key);
    touch(key);
    return true;
  },
  has: (_, key) => sharedValues.has(key),
  ownKeys: () => [...sharedValues.keys()],
  getOwnPropertyDescriptor(_, key) {
    if (!sharedValues.has(key)) return undefined;
    return { value: this.get(_, key), writable: true, enumerable: true, configurable: true };
  },
});

let flushLater = null;
function touch(key) {
  touched.add(key);
  flushLater ??= setTimeout(() => {
    flushLater = null;
    flushShared();
  }, 50);
}

/** Whether JSON keeps a value as it is. What it does not keep stays in this script's own isolate. */
function plain(value) {
  if (value === null || typeof value !== "object") return typeof value !== "function" && typeof value !== "undefined" && typeof value !== "bigint";
  return Array.isArray(value) || Object.getPrototypeOf(value) === Object.prototype || Object.getPrototypeOf(value) === null;
}

/** Tell the kit what changed; resolves when it has it. */
function flushShared() {
  if (touched.size === 0) return undefined;
  for (const key of touched) {
    const value = sharedValues.get(key);
    let text;
    if (value !== undefined) {
      if (!plain(value)) continue;
      try {
        text = JSON.stringify(value);
      } catch {
        continue; // a cycle: it stays here
      }
    }
    if (text === sharedKnown.get(key)) continue;
    if (text !== undefined && text.length > SHARED_BYTES) {
      log("error", [`shared.${key} is larger than ${SHARED_BYTES} bytes and is not kept`]);
      continue;
    }
    if (text === undefined) sharedKnown.delete(key);
    else sharedKnown.set(key, text);
    tell({ t: "shared", seq: ++sharedSeq, key, json: text ?? null });
  }
  touched.clear();
  if (acked >= sharedSeq) return undefined;
  const wanted = sharedSeq;
  return new Promise((resolve) => ackWaiters.push({ wanted, resolve }));
}

function sharedAck(seq) {
  acked = Math.max(acked, seq);
  ackWaiters = ackWaiters.filter((waiter) => waiter.wanted > acked || waiter.resolve());
}

function sharedNews({ key, json, version, all }) {
  if (all) {
    sharedValues.clear();
    sharedKnown.clear();
    for (const [name, text] of Object.entries(all)) {
      sharedKnown.set(name, text);
      sharedValues.set(name, JSON.parse(text));
    }
  } else if (json === null) {
    sharedKnown.delete(key);
    sharedValues.delete(key);
  } else {
    sharedKnown.set(key, json);
    sharedValues.set(key, JSON.parse(json));
  }
  sharedVersion = version;
  versionWaiters = versionWaiters.filter((waiter) => waiter.wanted > version || waiter.resolve());
}

/** Another script's answer may have told of a state that is still on its way here. */
function sharedAtLeast(wanted) {
  if (sharedVersion >= wanted) return undefined;
  return new Promise((resolve) => {
    versionWaiters.push({ wanted, resolve });
    setTimeout(resolve, SHARED_WAIT_MS);
  });
}

// ---- loading ----------------------------------------------------------------------------------

let settings;
let script;
let before = null;
let after = null;
let baseline;

async function load(message) {
  settings = message;
  if (message.shared) sharedNews({ all: message.shared.values, version: message.shared.version });
  const watched = [];
  for (const [name, value] of Object.entries(await environment(message, watched))) Deno.env.set(name, value);
  script = await prepare(message.script, watched, true);
  for (const name of ["pre", "post"]) {
    for (const extension of ["ts", "js"]) {
      const path = join(dirname(message.script), `${name}.${extension}`);
      watched.push(path);
      const found = await nodeFs.stat(path).then((facts) => facts.isFile(), () => false);
      if (!found) continue;
      const made = await prepare(path, watched, false);
      if (name === "pre") before = made;
      else after = made;
      break;
    }
  }
  baseline = new Set(Reflect.ownKeys(globalThis));
  Deno.serve({ path: message.http, onListen() {} }, answer);
  tell({ t: "ready", watched: [...new Set(watched)] });
}

/** The variables of `_default.env` from the root down to the script, then of its own file. */
async function environment(message, watched) {
  const files = [];
  let directory = dirname(message.script);
  while (directory.startsWith(message.root)) {
    files.unshift(join(directory, "_default.env"));
    if (directory === message.root) break;
    directory = dirname(directory);
  }
  files.push(message.script.replace(/\.[^./]+$/, ".env"));
  const found = {};
  for (const file of files) {
    watched.push(file);
    const text = await nodeFs.readFile(file, "utf8").catch(() => "");
    for (const line of text.split("\n")) {
      const pair = /^\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*?)\s*$/.exec(line);
      if (pair) found[pair[1]] = pair[2].replace(/^(["'])(.*)\1$/, "$2");
    }
  }
  return found;
}

async function prepare(path, watched, isMain) {
  watched.push(path);
  const source = await nodeFs.readFile(path, "utf8");
  const made = compile(source, path, isMain ? bindingNames : middlewareNames);
  const directory = join(settings.root, ".hoody-cache");
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", encoder.encode(made.code)));
  const name = [...digest.subarray(0, 12)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  const file = join(directory, `${name}.mjs`);
  const fresh = join(directory, `.${name}.${Deno.pid}`);
  await nodeFs.writeFile(fresh, made.code);
  await nodeFs.rename(fresh, file);
  const own = path.startsWith(settings.root) ? path.slice(settings.root.length + 1) : path;
  places.push([pathToFileURL(file).href, own], [file, own], [pathToFileURL(settings.root).href + "/", ""]);
  for (const wanted of made.local) watched.push(wanted);
  const module = await import(pathToFileURL(file).href);
  return { run: module.default, path };
}

// ---- requests ---------------------------------------------------------------------------------

const INTERNAL = "x-hoody-exec-";

class Ended extends Error {}

/** The answer, as a script writes it. */
class Reply {
  statusCode = 200;
  headersSent = false;
  writableEnded = false;
  #headers = new Headers();
  #begun = Promise.withResolvers();
  #stream = null;
  #listeners = new Map();

  constructor(signal) {
    signal.addEventListener("abort", () => this.emit("close"));
  }
  get begun() {
    return this.#begun.promise;
  }
  status(code) {
    this.statusCode = code;
    return this;
  }
  setHeader(name, value) {
    if (this.headersSent) throw new Error(`the header ${name} cannot be set: the answer was sent already`);
    this.#headers.delete(name);
    for (const one of Array.isArray(value) ? value : [value]) this.#headers.append(name, String(one));
    return this;
  }
  set(name, value) {
    if (typeof name === "object") for (const [one, its] of Object.entries(name)) this.setHeader(one, its);
    else this.setHeader(name, value);
    return this;
  }
  header(name, value) {
    return this.set(name, value);
  }
  append(name, value) {
    this.#headers.append(name, String(value));
    return this;
  }
  getHeader(name) {
    return this.#headers.get(name) ?? undefined;
  }
  get(name) {
    return this.getHeader(name);
  }
  hasHeader(name) {
    return this.#headers.has(name);
  }
  removeHeader(name) {
    this.#headers.delete(name);
  }
  getHeaders() {
    return Object.fromEntries(this.#headers);
  }
  type(value) {
    return this.setHeader("content-type", value);
  }
  writeHead(code, reason, headers) {
    this.statusCode = code;
    this.set(headers ?? (typeof reason === "object" ? reason : {}));
    return this;
  }
  flushHeaders() {
    if (!this.#stream) this.#open();
  }
  redirect(code, to) {
    if (to === undefined) [code, to] = [302, code];
    this.statusCode = code;
    this.setHeader("location", to);
    this.end();
    return this;
  }
  cookie(name, value, options = {}) {
    let text = `${encodeURIComponent(name)}=${encodeURIComponent(value)}; Path=${options.path ?? "/"}`;
    if (options.maxAge !== undefined) text += `; Max-Age=${Math.floor(options.maxAge / 1000)}`;
    if (options.httpOnly) text += "; HttpOnly";
    if (options.secure) text += "; Secure";
    if (options.sameSite) text += `; SameSite=${options.sameSite}`;
    return this.append("set-cookie", text);
  }
  json(value) {
    if (!this.#headers.has("content-type")) this.#headers.set("content-type", "application/json");
    this.end(JSON.stringify(value) ?? "null");
    return this;
  }
  send(value) {
    const [body, type] = bodyOf(value);
    if (type && !this.#headers.has("content-type")) this.#headers.set("content-type", type);
    this.end(body);
    return this;
  }
  write(part) {
    if (this.writableEnded) throw new Error("the answer has ended already");
    if (!this.#stream) this.#open();
    this.#stream.write(part);
    return this.#stream.room();
  }
  end(part) {
    if (this.writableEnded) return this;
    if (this.#stream) {
      if (part !== undefined && part !== null) this.#stream.write(part);
      this.#stream.end();
    } else {
      this.#send(part ?? null);
    }
    this.writableEnded = true;
    this.emit("finish");
    return this;
  }
  /** Give this as the answer, unless one was begun. */
  finish(response) {
    if (this.headersSent) return;
    for (const [name, value] of this.#headers) if (!response.headers.has(name)) response.headers.append(name, value);
    this.headersSent = this.writableEnded = true;
    this.#begun.resolve(response);
  }
  sendBody(body, type) {
    if (type && !this.#headers.has("content-type")) this.#headers.set("content-type", type);
    this.#send(body);
    this.writableEnded = true;
  }
  /** End an answer that cannot be completed. */
  fail(error) {
    this.#stream?.fail(error);
    this.writableEnded = true;
  }
  #send(body) {
    this.headersSent = true;
    const bare = [101, 204, 205, 304].includes(this.statusCode);
    this.#begun.resolve(new Response(bare ? null : body, { status: this.statusCode, headers: this.#headers }));
  }
  #open() {
    const stream = pipe(() => this.emit("drain"), () => this.emit("close"));
    this.#stream = stream;
    this.#send(stream.readable);
  }
  on(name, listener) {
    if (!this.#listeners.has(name)) this.#listeners.set(name, new Set());
    this.#listeners.get(name).add(listener);
    return this;
  }
  once(name, listener) {
    return this.on(name, listener);
  }
  off(name, listener) {
    this.#listeners.get(name)?.delete(listener);
    return this;
  }
  emit(name, ...words) {
    for (const listener of this.#listeners.get(name) ?? []) listener(...words);
  }
}

function pipe(onRoom, onCancel) {
  let controller;
  const readable = new ReadableStream(
    {
      start(it) {
        controller = it;
      },
      pull: onRoom,
      cancel: onCancel,
    },
    { highWaterMark: 64 << 10, size: (part) => part.byteLength },
  );
  return {
    readable,
    write: (part) => controller.enqueue(typeof part === "string" ? encoder.encode(part) : new Uint8Array(part.buffer ?? part, part.byteOffset ?? 0, part.byteLength)),
    room: () => controller.desiredSize > 0,
    end: () => controller.close(),
    fail: (error) => controller.error(error),
  };
}

function bodyOf(value) {
  if (typeof value === "string") return [value, /^\s*<(?:!doctype html|html)/i.test(value) ? "text/html; charset=utf-8" : "text/plain; charset=utf-8"];
  if (value instanceof Uint8Array || value instanceof ArrayBuffer) return [value, "application/octet-stream"];
  if (value instanceof Blob) return [value, value.type || "application/octet-stream"];
  if (value instanceof ReadableStream) return [bytesOf(value), "text/plain; charset=utf-8"];
  if (typeof value === "object" && value !== null && (Symbol.asyncIterator in value || (typeof value.next === "function" && Symbol.iterator in value)))
    return [bytesOf(ReadableStream.from(value)), "text/plain; charset=utf-8"];
  return [JSON.stringify(value) ?? "null", "application/json"];
}

/** Text parts become bytes; so do values of other kinds, as lines of JSON. */
function bytesOf(stream) {
  return stream.pipeThrough(
    new TransformStream({
      transform(part, controller) {
        if (typeof part === "string") controller.enqueue(encoder.encode(part));
        else if (part instanceof Uint8Array) controller.enqueue(part);
        else controller.enqueue(encoder.encode(JSON.stringify(part) + "\n"));
      },
    }),
  );
}

async function bodyIn(request, req) {
  if (request.method === "GET" || request.method === "HEAD" || !request.body) return;
  const bytes = Buffer.from(await request.arrayBuffer());
  req.rawBody = bytes;
  const type = (request.headers.get("content-type") ?? "").toLowerCase();
  if (type.includes("json")) {
    if (bytes.length === 0) return;
    try {
      req.body = JSON.parse(bytes.toString("utf8"));
    } catch (error) {
      throw Object.assign(new Ended(`the request's body is not JSON: ${error.message}`), { status: 400, code: "INVALID_JSON" });
    }
  } else if (type.startsWith("application/x-www-form-urlencoded")) {
    req.body = Object.fromEntries(new URLSearchParams(bytes.toString("utf8")));
  } else if (type.startsWith("multipart/form-data")) {
    let form;
    try {
      form = await new Response(bytes, { headers: { "content-type": request.headers.get("content-type") } }).formData();
    } catch (error) {
      throw Object.assign(new Ended(`the request's form cannot be read: ${error.message}`), { status: 400, code: "INVALID_FORM" });
    }
    req.body = {};
    req.files = [];
    for (const [fieldName, value] of form) {
      if (typeof value === "string") req.body[fieldName] = value;
      else req.files.push({ fieldName, filename: value.name, type: value.type, size: value.size, data: Buffer.from(await value.arrayBuffer()) });
    }
  } else if (type.startsWith("text/")) {
    req.body = bytes.toString("utf8");
  } else {
    req.body = bytes;
  }
}

let inFlight = 0;

function answer(request) {
  const headers = request.headers;
  const context = { id: headers.get(INTERNAL + "id") ?? "" };
  return current.run(context, () => serve(request, context));
}

async function serve(request, context) {
  const given = JSON.parse(decodeURIComponent(request.headers.get(INTERNAL + "call") ?? "%7B%7D"));
  const url = new URL(request.url);
  const headers = {};
  for (const [name, value] of request.headers) if (!name.startsWith(INTERNAL)) headers[name] = name in headers ? `${headers[name]}, ${value}` : value;
  const signal = request.signal;
  const req = {
    method: given.method ?? request.method,
    url: given.url ?? url.pathname + url.search,
    headers,
    body: null,
    ip: given.ip ?? null,
    signal,
    params: given.parameters ?? {},
    query: undefined,
    on(name, listener) {
      if (name === "close" || name === "aborted") signal.addEventListener("abort", () => listener());
      return req;
    },
    get: (name) => headers[String(name).toLowerCase()],
  };
  delete req.query;
  const query = Object.fromEntries(new URL(req.url, "http://script").searchParams);
  const parameters = given.parameters ?? {};
  const metadata = {
    path: url.pathname,
    method: req.method,
    query: { ...query, ...parameters },
    parameters: { ...query, ...parameters },
    headers,
    executionId: context.id,
    scriptPath: settings.name,
    hostname: given.hostname ?? null,
    execId: settings.execId,
    subdomain: settings.subdomain,
    mode: settings.mode,
    directory: dirname(settings.script),
  };
  const behind = sharedAtLeast(given.shared ?? 0);
  if (behind) await behind;
  const upgrade = (headers["upgrade"] ?? "").toLowerCase() === "websocket";
  const res = new Reply(signal);
  inFlight++;
  try {
    if (upgrade) return await socketFor(request, req, res, metadata);
    if (settings.rawBody) {
      req.stream = request.body;
      req.arrayBuffer = () => request.arrayBuffer();
      req.text = () => request.text();
      req[Symbol.asyncIterator] = () => (request.body ?? new Blob([]).stream())[Symbol.asyncIterator]();
    } else {
      await bodyIn(request, req);
    }
    run(req, res, metadata, roomFor(parameters, false)?.ws ?? idleWs).catch((error) => failed(error, res));
    const response = await res.begun;
    const told = flushShared();
    if (told) await told;
    return response;
  } catch (error) {
    failed(error, res);
    return await res.begun;
  } finally {
    inFlight--;
    if (inFlight === 0 && settings.mode !== "worker") forget();
  }
}

/** What scripts leave in the global scope goes with the request, unless they are workers. */
function forget() {
  const now = Reflect.ownKeys(globalThis);
  if (now.length === baseline.size) return;
  for (const key of now) if (!baseline.has(key)) delete globalThis[key];
}

function failed(error, res) {
  if (res.headersSent) {
    log("error", ["the script failed after its answer had begun:", shown(error)]);
    res.fail(error);
    return;
  }
  const own = error instanceof Ended;
  const { message, stack } = described(error);
  if (!own) log("error", [stack || message]);
  const body = {
    error: own ? message : `the script ${settings.name} failed: ${message}`,
    code: own ? error.code : "SCRIPT_ERROR",
    timestamp: new Date().toISOString(),
    details: { script: settings.name, executionId: current.getStore()?.id },
  };
  res.finish(
    new Response(JSON.stringify(body), {
      status: own ? error.status : 500,
      headers: { "content-type": "application/json", [INTERNAL + "failed"]: encodeURIComponent(message.slice(0, 300)) },
    }),
  );
}

/** Run the script with what stands before and after it, and see that an answer comes of it. */
async function run(req, res, metadata, ws) {
  let result;
  let stopped = false;
  if (before) {
    result = await once(before, [req, res, metadata, shared]);
    stopped = (result !== undefined && result !== null) || res.headersSent;
  }
  let waits = false;
  if (!stopped) ({ result, waits } = await body(req, res, metadata, ws));
  if (after && !waits) {
    const other = await once(after, [req, res, metadata, shared, result]);
    if (other !== undefined && other !== null) result = other;
  }
  if (res.headersSent || waits) return;
  conclude(result, res);
}

function conclude(result, res) {
  if (result instanceof Response) return res.finish(new Response(result.body, result));
  if (result?.textStream && !(result instanceof Promise)) result = result.textStream;
  if (result === undefined || result === null) {
    if (res.statusCode === 200) res.statusCode = 204;
    return res.sendBody(null);
  }
  const [bytes, type] = bodyOf(result);
  res.sendBody(bytes, type);
}

async function once(part, args) {
  const module = { exports: {} };
  const exported = {};
  const require = requireFor(part.path);
  const result = await part.run(...args.slice(0, 4), console, require, module, module.exports, exported, importerFor(part.path), { url: pathToFileURL(part.path).href }, args[4]);
  if (result !== undefined) return result;
  const handler = handlerOf(module, exported);
  return typeof handler === "function" ? await handler(...args) : undefined;
}

function handlerOf(module, exported) {
  if (typeof module.exports === "function") return module.exports;
  const { default: main } = exported;
  return main ?? module.exports.default ?? module.exports.handler ?? exported.handler;
}

const METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

async function body(req, res, metadata, ws) {
  const module = { exports: {} };
  const exported = {};
  const meta = { url: pathToFileURL(script.path).href, filename: script.path, dirname: dirname(script.path) };
  const result = await script.run(
    req, res, metadata, shared, console, requireFor(script.path), module, module.exports, exported, importerFor(script.path), meta,
    ...given(), ws,
  );
  if (result !== undefined || res.headersSent) return { result, waits: false };
  let handler = handlerOf(module, exported);
  const all = { ...(typeof module.exports === "object" ? module.exports : {}), ...exported };
  const byMethod = METHODS.filter((name) => typeof all[name] === "function");
  if (typeof handler === "object" && typeof handler?.fetch === "function") {
    const its = handler;
    handler = (req) => its.fetch(webRequest(req), {}, {});
  }
  if (typeof handler !== "function" && byMethod.length > 0) {
    handler = all[req.method] ?? (req.method === "HEAD" ? all["GET"] : undefined);
    if (!handler) {
      res.status(405).setHeader("allow", byMethod.join(", "));
      res.json({ error: `${settings.name} does not answer ${req.method}; it answers ${byMethod.join(", ")}`, code: "METHOD_NOT_ALLOWED", timestamp: new Date().toISOString() });
      return { result: undefined, waits: false };
    }
  }
  if (typeof handler !== "function") return { result, waits: false };
  const returned = handler(req, res, metadata, shared);
  const value = await returned;
  // a handler that answers from a callback has returned before it did
  const waits = value === undefined && !res.headersSent && handler.length >= 2 && !(returned instanceof Promise);
  return { result: value, waits };
}

function webRequest(req) {
  const bare = req.method === "GET" || req.method === "HEAD";
  return new Request(new URL(req.url, `http://${req.headers.host ?? "script"}`), {
    method: req.method,
    headers: req.headers,
    body: bare ? undefined : req.rawBody,
    signal: req.signal,
  });
}

// ---- names that every script has --------------------------------------------------------------

const requires = new Map();
function requireFor(path) {
  if (!requires.has(path)) {
    const require = createRequire(pathToFileURL(path));
    requires.set(path, (name) => require(name));
  }
  return requires.get(path);
}

/** What `import()` in a script is given: relative names start from the script's own file. */
const importerFor = (path) => (name) => {
  name = String(name);
  if (/^\.{0,2}\//.test(name)) return new URL(name, pathToFileURL(path)).href;
  return isBuiltin(name) && !name.startsWith("node:") ? `node:${name}` : name;
};

const here = (path) => (typeof path === "string" ? resolve(settings.base, path) : path instanceof URL ? fileURLToPath(path) : path);

/** Files, asynchronously. Relative paths are below the scripts of this deployment. */
const files = {
  readFile: (path, options) => nodeFs.readFile(here(path), options),
  readText: (path) => nodeFs.readFile(here(path), "utf8"),
  readJson: async (path) => JSON.parse(await nodeFs.readFile(here(path), "utf8")),
  /** Whole or not at all: nobody reads a part of it. */
  async writeFile(path, data, options) {
    const to = here(path);
    await nodeFs.mkdir(dirname(to), { recursive: true });
    const draft = join(dirname(to), `.${crypto.randomUUID()}.draft`);
    try {
      await nodeFs.writeFile(draft, data, options);
      await nodeFs.rename(draft, to);
    } catch (error) {
      await nodeFs.rm(draft, { force: true });
      throw error;
    }
  },
  appendFile: (path, data, options) => nodeFs.appendFile(here(path), data, options),
  readdir: (path = ".", options) => nodeFs.readdir(here(path), options),
  stat: (path) => nodeFs.stat(here(path)),
  exists: (path) => nodeFs.stat(here(path)).then(() => true, () => false),
  mkdir: (path, options) => nodeFs.mkdir(here(path), { recursive: true, ...options }),
  rm: (path, options) => nodeFs.rm(here(path), options),
  unlink: (path) => nodeFs.unlink(here(path)),
  rename: (from, to) => nodeFs.rename(here(from), here(to)),
  copyFile: (from, to) => nodeFs.copyFile(here(from), here(to)),
};

const isolate = {
  /** Run code in a sandbox of its own: no files, no network, no other process. */
  eval: (code, globals = {}, options = {}) => ask("eval", { code: String(code), globals: JSON.stringify(globals), timeout: options.timeout ?? null }),
};

let made;
/** Values of the names below, in their order. */
function given() {
  made ??= (() => {
    const ai = settings.ai.enabled ? bindings(settings.ai, settings.script) : {};
    return [isolate, files, ai.ai, ai.openai, ai.model, ai.generateText, ai.streamText, ai.generateObject];
  })();
  return made;
}

const middlewareNames = ["req", "res", "metadata", "shared", "console", "require", "module", "exports", "__exports", "__import", "__meta", "mainResult"];
const bindingNames = [
  "req", "res", "metadata", "shared", "console", "require", "module", "exports", "__exports", "__import", "__meta",
  "isolate", "fs", "ai", "openai", "model", "generateText", "streamText", "generateObject", "ws",
];

// ---- WebSockets -------------------------------------------------------------------------------

const idleWs = { connections: new Set(), broadcast() {}, on() {} };
const rooms = new Map();

function roomFor(parameters, make) {
  if (!settings.websocket) return undefined;
  const key = JSON.stringify(parameters);
  let room = rooms.get(key);
  if (!room && make) {
    if (rooms.size >= ROOMS) throw Object.assign(new Ended(`${settings.name} has ${ROOMS} rooms open, which is the limit`), { status: 503, code: "TOO_MANY_ROOMS" });
    const ws = {
      connections: new Set(),
      broadcast(data, except) {
        for (const socket of ws.connections) if (socket !== except) socket.send(data);
      },
      on(name, listener) {
        ws[name] = listener;
        return ws;
      },
      open: undefined,
      message: undefined,
      close: undefined,
      error: undefined,
    };
    room = { ws, begun: null };
    rooms.set(key, room);
  }
  return room;
}

function frame(data) {
  if (typeof data === "string" || data instanceof ArrayBuffer || ArrayBuffer.isView(data) || data instanceof Blob) return data;
  return JSON.stringify(data);
}

async function socketFor(request, req, res, metadata) {
  if (!settings.websocket || settings.mode !== "worker") {
    const { socket, response } = Deno.upgradeWebSocket(request);
    socket.onopen = () => socket.close(4400, "the script needs `// @websocket` and `// @mode worker`");
    return response;
  }
  if (before && settings.websocketPre) {
    const stop = await once(before, [req, res, metadata, shared]);
    if ((stop !== undefined && stop !== null) || res.headersSent) {
      if (res.headersSent) return await res.begun;
      if (res.statusCode < 400) res.statusCode = 403;
      conclude(stop, res);
      return await res.begun;
    }
  }
  const room = roomFor(metadata.parameters === undefined ? {} : req.params, true);
  const { ws } = room;
  if (!room.begun) {
    const first = { ...metadata, method: "WEBSOCKET_INIT" };
    room.begun = body(req, new Reply(request.signal), first, ws);
  }
  try {
    await room.begun;
  } catch (error) {
    rooms.delete(JSON.stringify(req.params));
    throw error;
  }
  const { socket, response } = Deno.upgradeWebSocket(request, { idleTimeout: 0 });
  socket.binaryType = "arraybuffer";
  const query = metadata.query;
  const peer = {
    id: metadata.executionId,
    data: { query, headers: req.headers, ip: req.ip },
    get readyState() {
      return socket.readyState;
    },
    send(data) {
      // a client that takes nothing is let go before it fills the memory
      if (socket.bufferedAmount > SHARED_BYTES) return socket.close(1013, "too slow");
      if (socket.readyState === WebSocket.OPEN) socket.send(frame(data));
    },
    close: (code = 1000, reason = "") => socket.close(code, reason),
  };
  const context = current.getStore();
  const call = (name, ...words) =>
    current.run(context, async () => {
      try {
        await ws[name]?.(...words);
      } catch (error) {
        log("error", [`ws.${name} failed:`, shown(error)]);
      }
      flushShared();
    });
  socket.onopen = () => {
    ws.connections.add(peer);
    call("open", peer, req);
  };
  socket.onmessage = (event) => call("message", peer, typeof event.data === "string" ? event.data : Buffer.from(event.data));
  socket.onclose = (event) => {
    ws.connections.delete(peer);
    call("close", peer, event.code, event.reason);
    if (ws.connections.size === 0) rooms.delete(JSON.stringify(req.params));
  };
  return response;
}

listen();
