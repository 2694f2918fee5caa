// @template category=utility
// @template tags=start
// @template description=Says hello to whoever is named.
// @template params=greeting
// @description Says hello
return { message: `{{greeting}}, ${metadata.query.name ?? "world"}!` };
