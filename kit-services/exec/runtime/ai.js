// Models behind an endpoint that speaks OpenAI's or Anthropic's protocol, configured for the
// container: HOODY_AI_URL, HOODY_AI_KEY, HOODY_AI_MODEL, HOODY_AI_KIND in its environment.
import { readFile } from "node:fs/promises";
import { dirname, join } from "node:path";

/** What an endpoint may answer. */
const ANSWER_BYTES = 16 << 20;
/** What an endpoint may take for its answer's beginning. */
const PATIENCE_MS = 120_000;
const ANTHROPIC_VERSION = "2023-06-01";
const USUAL_TOKENS = 4096;

function endpoint() {
  const variable = (...names) => names.map((name) => Deno.env.get(name)).find((value) => value);
  const explicit = variable("HOODY_AI_KIND");
  const kind = explicit ?? (variable("HOODY_AI_URL", "OPENAI_BASE_URL", "OPENAI_API_KEY") ? "openai" : variable("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL") ? "anthropic" : "openai");
  if (kind !== "openai" && kind !== "anthropic") throw new Error(`HOODY_AI_KIND is ${kind}; it is openai or anthropic`);
  const anthropic = kind === "anthropic";
  const url = variable("HOODY_AI_URL", anthropic ? "ANTHROPIC_BASE_URL" : "OPENAI_BASE_URL") ?? (variable(anthropic ? "ANTHROPIC_API_KEY" : "OPENAI_API_KEY") ? (anthropic ? "https://api.anthropic.com/v1" : "https://api.openai.com/v1") : undefined);
  if (!url)
    throw Object.assign(new Error("no model endpoint is configured; set HOODY_AI_URL (and HOODY_AI_KEY, HOODY_AI_MODEL, HOODY_AI_KIND) in the environment of this container or in a _default.env beside the scripts"), { code: "AI_NOT_CONFIGURED" });
  return { kind, url: url.replace(/\/+$/, ""), key: variable("HOODY_AI_KEY", anthropic ? "ANTHROPIC_API_KEY" : "OPENAI_API_KEY"), model: variable("HOODY_AI_MODEL") };
}

/** The names that a script with `@ai` has. */
export function bindings(wish, script) {
  const openai = (id) => ({ modelId: id });
  openai.chat = openai;
  const model = { modelId: wish.model ?? undefined };

  async function usual() {
    for (const file of [script.replace(/\.[^./]+$/, ".system.md"), join(dirname(script), "_system.md")]) {
      const text = await readFile(file, "utf8").catch(() => "");
      if (text.trim()) return text;
    }
    return undefined;
  }
  const asked = async (words, forAi) => {
    const options = typeof words === "string" ? { prompt: words } : { ...words };
    if (forAi) {
      options.system ??= await usual();
      options.temperature ??= wish.temperature ?? undefined;
      options.maxTokens ??= wish.maxTokens ?? undefined;
      options.model ??= model;
    }
    return options;
  };
  const generate = async (words, forAi) => {
    const { request, read } = await prepared(await asked(words, forAi), wish, false);
    const reply = await exchange(request);
    const text = await bounded(reply);
    let value;
    try {
      value = JSON.parse(text);
    } catch {
      throw new Error("the model's endpoint answered what is no JSON");
    }
    return read(value);
  };
  const stream = async (words, forAi) => {
    const { request, part } = await prepared(await asked(words, forAi), wish, true);
    const reply = await exchange(request);
    let whole;
    const textStream = new ReadableStream({
      async start(controller) {
        let text = "";
        let ended;
        whole = new Promise((resolve, reject) => (ended = { resolve, reject }));
        whole.catch(() => {});
        try {
          for await (const data of events(reply)) {
            const more = part(data);
            if (!more) continue;
            text += more;
            controller.enqueue(more);
          }
          controller.close();
          ended.resolve(text);
        } catch (error) {
          controller.error(error);
          ended.reject(error);
        }
      },
      cancel: () => reply.body?.cancel().catch(() => {}),
    });
    textStream[Symbol.asyncIterator] ??= textStream.values;
    return { textStream, text: whole };
  };
  const object = async (words, forAi) => {
    const { schema, ...rest } = await asked(words, forAi);
    const shape = schemaOf(schema);
    const system = [rest.system, `Answer with one JSON value and nothing else.${shape ? ` It must fit this JSON Schema: ${JSON.stringify(shape)}` : ""}`].filter(Boolean).join("\n\n");
    const result = await generate({ ...rest, system, json: true }, false);
    let value;
    try {
      value = JSON.parse(unfenced(result.text));
    } catch {
      throw Object.assign(new Error("the model did not answer with JSON"), { text: result.text });
    }
    if (typeof schema?.parse === "function") value = schema.parse(value);
    return { ...result, object: value };
  };
  return {
    openai,
    model,
    generateText: (words) => generate(words, false),
    streamText: (words) => stream(words, false),
    generateObject: (words) => object(words, false),
    ai: { generate: (words) => generate(words, true), stream: (words) => stream(words, true), object: (words) => object(words, true) },
  };
}

function schemaOf(schema) {
  if (!schema || typeof schema !== "object") return undefined;
  if (typeof schema.toJSONSchema === "function") return schema.toJSONSchema();
  if (schema.jsonSchema) return schema.jsonSchema;
  return typeof schema.parse === "function" ? undefined : schema;
}

function unfenced(text) {
  const fenced = /```(?:json)?\s*([\s\S]*?)```/.exec(text);
  return (fenced ? fenced[1] : text).trim();
}

async function prepared(options, wish, streams) {
  const at = endpoint();
  const model = (typeof options.model === "string" ? options.model : options.model?.modelId) ?? wish.model ?? at.model;
  if (!model) throw Object.assign(new Error("no model is named; set HOODY_AI_MODEL, or `// @ai-model` in the script"), { code: "AI_NOT_CONFIGURED" });
  const messages = [...(options.messages ?? [])];
  if (options.prompt !== undefined) messages.push({ role: "user", content: String(options.prompt) });
  const most = options.maxOutputTokens ?? options.maxTokens;
  const key = wish.key ?? at.key;
  const headers = { "content-type": "application/json" };
  if (at.kind === "anthropic") {
    headers["anthropic-version"] = ANTHROPIC_VERSION;
    if (key) headers["x-api-key"] = key;
    const system = [options.system, ...messages.filter((one) => one.role === "system").map((one) => one.content)].filter(Boolean).join("\n\n");
    const body = { model, max_tokens: most ?? USUAL_TOKENS, messages: messages.filter((one) => one.role !== "system") };
    if (system) body.system = system;
    if (options.temperature !== undefined) body.temperature = options.temperature;
    if (streams) body.stream = true;
    return {
      request: { url: `${at.url}/messages`, headers, body, signal: options.abortSignal },
      read: (value) => ({
        text: (value.content ?? []).filter((one) => one.type === "text").map((one) => one.text).join(""),
        finishReason: value.stop_reason,
        usage: { inputTokens: value.usage?.input_tokens, outputTokens: value.usage?.output_tokens },
      }),
      part: (data) => (data.type === "content_block_delta" ? data.delta?.text : undefined),
    };
  }
  if (key) headers.authorization = `Bearer ${key}`;
  if (options.system) messages.unshift({ role: "system", content: options.system });
  const body = { model, messages };
  if (most !== undefined) body.max_tokens = most;
  if (options.temperature !== undefined) body.temperature = options.temperature;
  if (options.json) body.response_format = { type: "json_object" };
  if (streams) body.stream = true;
  return {
    request: { url: `${at.url}/chat/completions`, headers, body, signal: options.abortSignal },
    read: (value) => ({
      text: value.choices?.[0]?.message?.content ?? "",
      finishReason: value.choices?.[0]?.finish_reason,
      usage: { inputTokens: value.usage?.prompt_tokens, outputTokens: value.usage?.completion_tokens },
    }),
    part: (data) => data.choices?.[0]?.delta?.content,
  };
}

async function exchange({ url, headers, body, signal }) {
  const late = AbortSignal.timeout(PATIENCE_MS);
  let reply;
  try {
    reply = await fetch(url, { method: "POST", headers, body: JSON.stringify(body), signal: signal ? AbortSignal.any([signal, late]) : late });
  } catch (error) {
    throw Object.assign(new Error(`the model's endpoint at ${new URL(url).origin} cannot be reached: ${error.message}`), { code: "AI_UNREACHABLE" });
  }
  if (!reply.ok) {
    const said = (await bounded(reply)).slice(0, 500);
    throw Object.assign(new Error(`the model's endpoint answered ${reply.status}: ${said}`), { code: "AI_REFUSED", status: reply.status });
  }
  return reply;
}

async function bounded(reply) {
  let size = 0;
  let text = "";
  const decoder = new TextDecoder();
  for await (const part of reply.body ?? []) {
    size += part.length;
    if (size > ANSWER_BYTES) throw new Error(`the model's endpoint answered more than ${ANSWER_BYTES} bytes`);
    text += decoder.decode(part, { stream: true });
  }
  return text + decoder.decode();
}

/** The data of server-sent events, as JSON, until `[DONE]`. */
async function* events(reply) {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const part of reply.body ?? []) {
    rest += decoder.decode(part, { stream: true });
    if (rest.length > ANSWER_BYTES) throw new Error("the model's endpoint sends a line without an end");
    let end;
    while ((end = rest.indexOf("\n")) >= 0) {
      const line = rest.slice(0, end).trim();
      rest = rest.slice(end + 1);
      if (!line.startsWith("data:")) continue;
      const data = line.slice(5).trim();
      if (data === "[DONE]") return;
      try {
        yield JSON.parse(data);
      } catch {
        // a part that is no JSON says nothing
      }
    }
  }
}
