// A small part of TypeScript's types: enough to hold a JSON value against what a script says that
// it returns.
const DEPTH = 64;
const TOKENS = /\s+|\/\/[^\n]*|\/\*[\s\S]*?\*\/|("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|-?\d+(?:\.\d+)?|[A-Za-z_$][\w$]*|=>|[{}[\]()<>|&:;,?=])|(.)/gy;
const PLAIN = new Set(["string", "number", "boolean", "null", "undefined", "void", "any", "unknown", "never", "object", "bigint", "Date"]);

export function readType(text) {
  if (text.length > 100_000) throw new Error("the type is longer than 100000 characters");
  const tokens = [];
  for (const [, token, other] of text.matchAll(TOKENS)) {
    if (other) throw new Error(`${JSON.stringify(other)} does not belong in a type`);
    if (token) tokens.push(token);
  }
  let at = 0;
  let depth = 0;
  const peek = () => tokens[at];
  const take = (token) => (tokens[at] === token ? (at++, true) : false);
  const need = (token) => {
    if (!take(token)) throw new Error(`expected \`${token}\`${tokens[at] ? `, found \`${tokens[at]}\`` : " before the end"}`);
  };
  const deeper = (read) => {
    if (++depth > DEPTH) throw new Error(`the type is nested more than ${DEPTH} deep`);
    const type = read();
    depth--;
    return type;
  };
  const union = () =>
    deeper(() => {
      take("|");
      const some = [crossing()];
      while (take("|")) some.push(crossing());
      return some.length === 1 ? some[0] : { kind: "union", of: some };
    });
  const crossing = () => {
    const all = [postfix()];
    while (take("&")) all.push(postfix());
    return all.length === 1 ? all[0] : { kind: "intersection", of: all };
  };
  const postfix = () => {
    let type = primary();
    while (peek() === "[" && tokens[at + 1] === "]") {
      at += 2;
      type = { kind: "array", of: type };
    }
    return type;
  };
  const members = () => {
    const fields = {};
    let index = null;
    while (!take("}")) {
      if (take("[")) {
        at++; // its name
        need(":");
        union();
        need("]");
        need(":");
        index = union();
      } else {
        const name = tokens[at++];
        if (name === undefined || !/^["'\w$]/.test(name)) throw new Error(`${name ? `\`${name}\`` : "the end"} is no name of a field`);
        const optional = take("?");
        need(":");
        fields[name.replace(/^["']|["']$/g, "")] = { type: union(), optional };
      }
      if (!take(";")) take(",");
    }
    return { kind: "object", fields, index };
  };
  const primary = () => {
    const token = tokens[at++];
    if (token === undefined) throw new Error("the type ends early");
    if (token === "(") {
      const type = union();
      need(")");
      return type;
    }
    if (token === "{") return members();
    if (token === "[") {
      const of = [];
      while (!take("]")) {
        of.push(union());
        take(",");
      }
      return { kind: "tuple", of };
    }
    if (/^["']/.test(token)) return { kind: "literal", value: token.slice(1, -1) };
    if (/^-?\d/.test(token)) return { kind: "literal", value: Number(token) };
    if (token === "true" || token === "false") return { kind: "literal", value: token === "true" };
    if (token === "readonly") return postfix();
    if (!/^[A-Za-z_$]/.test(token)) throw new Error(`\`${token}\` is no type`);
    const of = [];
    if (take("<")) {
      do of.push(union());
      while (take(","));
      need(">");
    }
    if (token === "Array" || token === "ReadonlyArray") return { kind: "array", of: of[0] ?? { kind: "any" } };
    if (token === "Promise" || token === "Awaited" || token === "Readonly") return of[0] ?? { kind: "any" };
    if (token === "Record") return { kind: "object", fields: {}, index: of[1] ?? { kind: "any" } };
    if (token === "Partial" && of[0]?.kind === "object")
      return { ...of[0], fields: Object.fromEntries(Object.entries(of[0].fields).map(([name, field]) => [name, { ...field, optional: true }])) };
    if (PLAIN.has(token)) return { kind: token };
    throw new Error(`the type \`${token}\` is not known here; write out what it stands for`);
  };
  if (take("export")) take("default");
  if (take("type")) {
    at++;
    need("=");
  } else if (take("interface")) at++;
  const type = union();
  take(";");
  if (at < tokens.length) throw new Error(`\`${tokens[at]}\` follows the type`);
  return type;
}

export function check(type, value, path = "$") {
  const wrong = (expected) => [{ path, expected, actual: value === null ? "null" : Array.isArray(value) ? "array" : typeof value, message: `${path} is not ${expected}` }];
  switch (type.kind) {
    case "any":
    case "unknown":
      return [];
    case "never":
      return wrong("never");
    case "null":
    case "undefined":
    case "void":
      return value === null || value === undefined ? [] : wrong(type.kind);
    case "Date":
    case "string":
      return typeof value === "string" ? [] : wrong(type.kind);
    case "bigint":
    case "number":
      return typeof value === "number" ? [] : wrong(type.kind);
    case "boolean":
      return typeof value === "boolean" ? [] : wrong("boolean");
    case "literal":
      return value === type.value ? [] : wrong(JSON.stringify(type.value));
    case "array":
      return Array.isArray(value) ? value.flatMap((one, at) => check(type.of, one, `${path}[${at}]`)).slice(0, 100) : wrong("array");
    case "tuple":
      if (!Array.isArray(value) || value.length !== type.of.length) return wrong(`tuple of ${type.of.length}`);
      return type.of.flatMap((its, at) => check(its, value[at], `${path}[${at}]`));
    case "union":
      return type.of.some((one) => check(one, value, path).length === 0) ? [] : wrong("any of the union's types");
    case "intersection":
      return type.of.flatMap((one) => check(one, value, path));
    default: {
      if (typeof value !== "object" || value === null || (Array.isArray(value) && type.kind === "object" && type.fields)) return wrong("object");
      const errors = [];
      for (const [name, field] of Object.entries(type.fields ?? {})) {
        if (Object.hasOwn(value, name)) errors.push(...check(field.type, value[name], `${path}.${name}`));
        else if (!field.optional) errors.push({ path: `${path}.${name}`, expected: field.type.kind, actual: "undefined", message: `${path}.${name} is missing` });
      }
      if (type.index) for (const [name, one] of Object.entries(value)) if (!Object.hasOwn(type.fields, name)) errors.push(...check(type.index, one, `${path}.${name}`));
      return errors.slice(0, 100);
    }
  }
}
