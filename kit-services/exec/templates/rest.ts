// @template category=api
// @template tags=rest,crud
// @template description=A collection of {{name}} kept in `shared`: list, add, read, change, remove.
// @template params=name
// @description {{name}}: a small REST collection
type Item = { id: string; [key: string]: unknown };

const items: Record<string, Item> = (shared.{{name}} ??= {});
const id = metadata.query.id;

if (req.method === "GET") {
  if (!id) return Object.values(items);
  if (!items[id]) return res.status(404).json({ error: `no item ${id}` });
  return items[id];
}
if (req.method === "POST") {
  const item = { ...(req.body ?? {}), id: crypto.randomUUID() };
  items[item.id] = item;
  return res.status(201).json(item);
}
if (!id || !items[id]) return res.status(404).json({ error: "name an item with ?id=" });
if (req.method === "DELETE") {
  delete items[id];
  return res.status(204).end();
}
items[id] = { ...items[id], ...(req.body ?? {}), id };
return items[id];
