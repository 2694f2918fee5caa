// @template category=api
// @template tags=ai,catch-all
// @template description=Answers any address: a model writes the handler, a sandbox tries it, and it is saved. The second call is native. Save it as [...slug].ts.
// @template params=purpose
// @description {{purpose}}
// @timeout 120000
const slug = [metadata.parameters.slug].flat();
if (!slug.every((name) => /^[a-z0-9][a-z0-9-]{0,60}$/.test(name)) || slug.length > 6) {
  return res.status(404).json({ error: "nothing is written for this address" });
}
const path = `/${slug.join("/")}`;
const file = `${metadata.directory}/${slug.join("/")}.ts`;

const { text } = await generateText({
  model,
  system:
    "You write one endpoint. Answer with JavaScript alone, without a fence: an expression that is a function of " +
    "one argument { method, path, query, body } and returns a JSON value. It has no network, no files and no imports.",
  prompt: `The purpose of this server: {{purpose}}\nWrite the handler of ${req.method} ${path}. Query: ${JSON.stringify(
    new URL(req.url, "http://x").searchParams.toString(),
  )}`,
});
const code = text.replace(/^\s*```\w*\n?|```\s*$/g, "").trim().replace(/;$/, "");
const { slug: _, ...query } = metadata.query;
const input = { method: req.method, path, query, body: req.body };

// What it does is seen where it can do nothing, before it is kept.
let value;
try {
  value = await isolate.eval(`(${code})(input)`, { input });
} catch (error) {
  return res.status(502).json({ error: `what the model wrote does not run: ${error.message}` });
}
if (!(await fs.exists(file))) {
  await fs.writeFile(
    file,
    `// @description ${path}, written by a model\n// @ai false\nconst handler = ${code};\n` +
      `return await handler({ method: req.method, path: ${JSON.stringify(path)}, query: metadata.query, body: req.body });\n`,
  );
}
res.setHeader("x-written-by", "model");
return value;
