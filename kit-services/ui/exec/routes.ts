// From the path of a script to its address, as the service has it.

/** The path below the deployment; none where it is another's. */
export function below(path: string, home: string): string | null {
  return path.startsWith(`${home}/`) ? path.slice(home.length + 1) : null
}

/** `users/[id].ts` is `/users/[id]`; none where nothing is answered. */
export function routeOf(path: string): string | null {
  const bare = /^(.*)\.(ts|js)$/.exec(path)?.[1]
  if (bare === undefined || path.endsWith('.d.ts')) return null
  const names = bare.split('/')
  if (names.some((name) => /^[._]/.test(name)) || ['pre', 'post'].includes(names.at(-1) ?? '')) return null
  if (names.at(-1) === 'index') names.pop()
  return `/${names.join('/')}`
}
