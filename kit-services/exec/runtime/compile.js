// From a script to a module: imports stand first, everything else is the body of one function that
// runs anew for every request. Lines keep their numbers.
import { isBuiltin, stripTypeScriptTypes } from "node:module";
import { dirname, resolve } from "node:path";
import { existsSync, readFileSync, statSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { parse } from "./acorn.mjs";

/** Files of a script's own that are looked into for what they import in turn. */
const LOCAL_FILES = 64;
/** A script is not larger; nor is what it imports of its own. */
export const SOURCE_BYTES = 4 << 20;

export class Unreadable extends Error {
  constructor(message, stage, line) {
    super(message);
    this.name = stage === "typescript" ? "TypeScriptError" : "SyntaxError";
    this.stage = stage;
    this.line = line;
  }
}

/** JavaScript of TypeScript; of JavaScript, itself. */
export function strip(source, path) {
  if (!/\.[mc]?tsx?$/.test(path)) return source;
  try {
    return stripTypeScriptTypes(source);
  } catch (error) {
    if (error.code !== "ERR_UNSUPPORTED_TYPESCRIPT_SYNTAX") throw wrong(error, "typescript");
  }
  try {
    return stripTypeScriptTypes(source, { mode: "transform" });
  } catch (error) {
    throw wrong(error, "typescript");
  }
}

function wrong(error, stage) {
  const first = String(error.message).split("\n").find((line) => line.trim()) ?? "it cannot be read";
  const at = /:(\d+):(\d+)/.exec(String(error.message));
  const message = first.replace(/ ?at file:\/\/\S+/, "").trim();
  return new Unreadable(at ? `${message} (line ${at[1]})` : message, stage, at ? Number(at[1]) : undefined);
}

const OPTIONS = { ecmaVersion: "latest", allowReturnOutsideFunction: true, allowAwaitOutsideFunction: true, allowHashBang: true, locations: true };

export function tree(code) {
  try {
    return parse(code, { ...OPTIONS, sourceType: "module" });
  } catch (error) {
    try {
      // what is no module may be a script of the older kind
      return parse(code, { ...OPTIONS, sourceType: "script" });
    } catch {
      const line = error.loc?.line;
      throw new Unreadable(`${error.message.replace(/ \(\d+:\d+\)$/, "")}${line ? ` (line ${line})` : ""}`, "syntax", line);
    }
  }
}

/** Every node, without recursion: how deep a script is nested is its own affair. */
export function* nodes(root) {
  const waiting = [root];
  while (waiting.length > 0) {
    const node = waiting.pop();
    yield node;
    for (const key in node) {
      const value = node[key];
      if (Array.isArray(value)) {
        for (const one of value) if (typeof one?.type === "string") waiting.push(one);
      } else if (typeof value?.type === "string") waiting.push(value);
    }
  }
}

/** The names that a script asks for: `import`, `export from`, `import()` and `require()` of literals. */
export function wanted(ast) {
  const names = new Set();
  for (const node of nodes(ast)) {
    if (/^(Import|ExportNamed|ExportAll)/.test(node.type) && typeof node.source?.value === "string") names.add(node.source.value);
    else if (node.type === "CallExpression" && node.callee.name === "require" && typeof node.arguments[0]?.value === "string") names.add(node.arguments[0].value);
  }
  return [...names];
}

const isLocal = (name) => /^\.{0,2}\//.test(name) || name.startsWith("file:");
/** The name of the package that an import names: none for files, builtins and URLs. */
export function packageOf(name) {
  if (isLocal(name) || isBuiltin(name) || /^(node|npm|jsr|https?|data|blob|bun):/.test(name) || name.startsWith("#")) return null;
  const parts = name.split("/");
  return name.startsWith("@") ? parts.slice(0, 2).join("/") : parts[0];
}

/** Files of the script's own, and what those import; and the packages that all of them ask for. */
export function surroundings(path, first) {
  const local = new Set();
  const packages = new Set();
  const queue = [[path, first]];
  while (queue.length > 0) {
    const [file, names] = queue.pop();
    for (const name of names) {
      const its = packageOf(name);
      if (its) packages.add(its);
      if (!isLocal(name)) continue;
      const found = findFile(resolve(dirname(file), name.startsWith("file:") ? new URL(name).pathname : name));
      if (!found || local.has(found) || local.size >= LOCAL_FILES) continue;
      local.add(found);
      try {
        if (/\.[mc]?[jt]s$/.test(found) && statSync(found).size <= SOURCE_BYTES) queue.push([found, wanted(tree(strip(readFileSync(found, "utf8"), found)))]);
      } catch {
        // whoever imports it is told what is wrong with it
      }
    }
  }
  return { local: [...local], packages: [...packages] };
}

function findFile(path) {
  for (const ending of ["", ".ts", ".js", ".mjs", ".cjs", ".json", "/index.ts", "/index.js"]) {
    const found = path + ending;
    if (existsSync(found) && statSync(found).isFile()) return found;
  }
  return null;
}

const target = (name, path) => {
  if (isLocal(name)) {
    const file = resolve(dirname(path), name);
    return pathToFileURL(name.startsWith("file:") ? new URL(name).pathname : (findFile(file) ?? file)).href;
  }
  return isBuiltin(name) && !name.startsWith("node:") ? `node:${name}` : name;
};

/** `{ code, packages, local }` of a script whose function takes these names. */
export function compile(source, path, names) {
  if (source.length > SOURCE_BYTES) throw new Unreadable(`it is larger than ${SOURCE_BYTES} bytes`, "syntax");
  const code = strip(source, path);
  const ast = tree(code);
  const edits = [];
  const head = [];
  const tail = [];
  const cut = (node) => edits.push([node.start, node.end, code.slice(node.start, node.end).replace(/[^\n]/g, " ")]);

  for (const node of ast.body) {
    switch (node.type) {
      case "ImportDeclaration":
        head.push(code.slice(node.start, node.source.start).replace(/\n/g, " ") + JSON.stringify(target(node.source.value, path)) + attributes(node, code));
        cut(node);
        break;
      case "ExportDefaultDeclaration": {
        const declaration = node.declaration;
        if (declaration.id && /Declaration$/.test(declaration.type)) {
          edits.push([node.start, declaration.start, blank(code, node.start, declaration.start)]);
          tail.push(`__exports.default = ${declaration.id.name};`);
          if (declaration.type === "FunctionDeclaration") head.early ??= [];
          head.early?.push(`__exports.default = ${declaration.id.name};`);
        } else {
          edits.push([node.start, declaration.start, `__exports.default = ${blank(code, node.start, declaration.start).replace(/^ +/, "")}`]);
          if (/Declaration$/.test(declaration.type)) edits.push([declaration.end, declaration.end, ";"]);
        }
        break;
      }
      case "ExportNamedDeclaration":
        if (node.declaration) {
          edits.push([node.start, node.declaration.start, blank(code, node.start, node.declaration.start)]);
          for (const name of declared(node.declaration)) {
            tail.push(`__exports[${JSON.stringify(name)}] = ${name};`);
            if (node.declaration.type === "FunctionDeclaration") (head.early ??= []).push(`__exports[${JSON.stringify(name)}] = ${name};`);
          }
        } else if (node.source) {
          node.specifiers.forEach((one, at) => {
            const name = `__from${node.start}_${at}`;
            head.push(`import { ${code.slice(one.local.start, one.local.end)} as ${name} } from ${JSON.stringify(target(node.source.value, path))};`);
            tail.push(`__exports[${JSON.stringify(one.exported.name ?? one.exported.value)}] = ${name};`);
          });
          cut(node);
        } else {
          for (const one of node.specifiers) tail.push(`__exports[${JSON.stringify(one.exported.name ?? one.exported.value)}] = ${one.local.name};`);
          cut(node);
        }
        break;
      case "ExportAllDeclaration": {
        const name = `__all${node.start}`;
        head.push(`import * as ${name} from ${JSON.stringify(target(node.source.value, path))};`);
        tail.push(`Object.assign(__exports, ${name});`);
        cut(node);
        break;
      }
    }
  }
  for (const node of nodes(ast)) {
    if (node.type === "ImportExpression") edits.push([node.source.start, node.source.start, "__import("], [node.source.end, node.source.end, ")"]);
    else if (node.type === "MetaProperty" && node.meta.name === "import") edits.push([node.start, node.end, "__meta"]);
  }
  edits.sort((one, other) => one[0] - other[0] || one[1] - other[1]);
  let text = "";
  let at = 0;
  for (const [start, end, by] of edits) {
    if (start < at) continue; // it is inside of what was cut
    text += code.slice(at, start) + by;
    at = end;
  }
  text += code.slice(at);
  if (text.startsWith("#!")) text = `//${text}`;
  const early = (head.early ?? []).join(" ");
  const made = `${head.join("; ")}${head.length ? ";" : ""}export default async function (${names.join(", ")}) { { ${early} ${text}\n${tail.join(" ")} } }\n`;
  return { code: made, ...surroundings(path, wanted(ast)) };
}

const blank = (code, from, to) => code.slice(from, to).replace(/[^\n]/g, " ");

function attributes(node, code) {
  const rest = code.slice(node.source.end, node.end).replace(/;\s*$/, "").replace(/\n/g, " ");
  return rest.trim() ? ` ${rest}` : "";
}

function declared(node) {
  if (node.id) return [node.id.name];
  const names = [];
  const patterns = node.declarations.map((one) => one.id);
  while (patterns.length > 0) {
    const pattern = patterns.pop();
    if (!pattern) continue;
    if (pattern.type === "Identifier") names.push(pattern.name);
    else if (pattern.type === "ObjectPattern") patterns.push(...pattern.properties.map((one) => one.value ?? one.argument));
    else if (pattern.type === "ArrayPattern") patterns.push(...pattern.elements);
    else if (pattern.type === "AssignmentPattern") patterns.push(pattern.left);
    else if (pattern.type === "RestElement") patterns.push(pattern.argument);
  }
  return names;
}
