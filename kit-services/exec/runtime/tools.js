// What the kit asks about code without running it: is it valid, what does it import, what does it
// become. One process for all scripts; a question that takes too long costs the kit this process.
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [CONTROL, PARTS] = Deno.args;
const { packageOf, strip, surroundings, tree, wanted } = await import(pathToFileURL(join(PARTS, "compile.js")).href);
const { check, readType } = await import(pathToFileURL(join(PARTS, "types.js")).href);

/** What a document that is fetched may have. */
const FETCHED_BYTES = 8 << 20;
const FETCH_MS = 20_000;

const control = await Deno.connect({ transport: "unix", path: CONTROL });

const TASKS = {
  analyze({ code, path, at }) {
    const said = { syntax: null, typescript: null, javascript: null, packages: [], imports: [], normalized: false, transformations: [] };
    const typed = /\.[mc]?tsx?$/.test(path);
    let plain = code;
    try {
      plain = strip(code, path);
      said.javascript = plain;
    } catch (error) {
      said.typescript = error.message;
      said.syntax = error.message;
      return said;
    }
    try {
      const ast = tree(plain);
      said.imports = wanted(ast);
      said.packages = at ? surroundings(at, said.imports).packages : [...new Set(said.imports.map(packageOf).filter(Boolean))];
      if (ast.body.some((node) => node.type.startsWith("Import"))) said.transformations.push("imports stand before the function");
      if (ast.body.some((node) => node.type.startsWith("Export"))) said.transformations.push("exports become the handler");
      if (/\bmodule\.exports\b/.test(plain)) said.transformations.push("module.exports becomes the handler");
      if (typed) said.transformations.push("types are removed");
      said.normalized = said.transformations.length > 0;
    } catch (error) {
      said.syntax = error.message;
    }
    return said;
  },
  type({ definition, value }) {
    const type = readType(definition);
    return { type, errors: check(type, value) };
  },
  async fetch({ url, headers }) {
    const reply = await fetch(url, { headers, redirect: "error", signal: AbortSignal.timeout(FETCH_MS) });
    if (!reply.ok) throw new Error(`it answered ${reply.status}`);
    let size = 0;
    let text = "";
    const decoder = new TextDecoder();
    for await (const part of reply.body ?? []) {
      size += part.length;
      if (size > FETCHED_BYTES) throw new Error(`it is larger than ${FETCHED_BYTES} bytes`);
      text += decoder.decode(part, { stream: true });
    }
    return text + decoder.decode();
  },
};

const encoder = new TextEncoder();
const writer = control.writable.getWriter();
const tell = (message) => writer.write(encoder.encode(JSON.stringify(message) + "\n"));

await tell({ t: "ready", watched: [] });
let rest = "";
const decoder = new TextDecoder();
for await (const part of control.readable) {
  rest += decoder.decode(part, { stream: true });
  let end;
  while ((end = rest.indexOf("\n")) >= 0) {
    const message = JSON.parse(rest.slice(0, end));
    rest = rest.slice(end + 1);
    Promise.resolve()
      .then(() => TASKS[message.t](message))
      .then(
        (value) => tell({ t: "reply", id: message.id, ok: true, value }),
        (error) => tell({ t: "reply", id: message.id, ok: false, error: String(error?.message ?? error) }),
      );
  }
}
Deno.exit(0);
