// Paths of the computer: absolute, `/` between names, no trailing slash but for the root.

/** First names that the service reads as operations under `api/v1/files/`. */
const OPERATIONS = new Set(['append', 'chmod', 'chown', 'copy', 'glob', 'grep', 'health', 'move', 'realpath', 'stat'])

/** Bytes in one name, as Linux has it. */
const NAME_BYTES = 255

/** An absolute path without `.`, `..` and doubled slashes. */
export function clean(path: string): string {
  const names: string[] = []
  for (const name of path.split('/')) {
    if (name === '' || name === '.') continue
    if (name === '..') names.pop()
    else names.push(name)
  }
  return `/${names.join('/')}`
}

export function join(dir: string, name: string): string {
  return dir === '/' ? `/${name}` : `${dir}/${name}`
}

export function parent(path: string): string {
  const at = path.lastIndexOf('/')
  return at <= 0 ? '/' : path.slice(0, at)
}

export function base(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1)
}

/** Whether `path` is `dir` or below it. */
export function within(path: string, dir: string): boolean {
  return path === dir || dir === '/' || path.startsWith(`${dir}/`)
}

/** The names on the way, each with its path; the root comes first. */
export function trail(path: string): { name: string; path: string }[] {
  const steps = [{ name: '/', path: '/' }]
  let at = ''
  for (const name of path.split('/').filter(Boolean)) {
    at += `/${name}`
    steps.push({ name, path: at })
  }
  return steps
}

function encode(path: string): string {
  return path.split('/').filter(Boolean).map(encodeURIComponent).join('/')
}

/** Where the contents of a path are, relative to the page. */
export function contentsUrl(path: string): string {
  const encoded = encode(path)
  const first = path.split('/', 2)[1] ?? ''
  // a leading slash of its own keeps `/copy` from being taken for the operation
  return `api/v1/files/${OPERATIONS.has(first) ? '%2F' : ''}${encoded}`
}

/** Where an operation on a path is. */
export function operationUrl(operation: 'stat' | 'copy' | 'move', path: string): string {
  return `api/v1/files/${operation}/${encode(path)}`
}

/** A folder ends in a slash in the address, a file does not. */
export function hashOf(path: string, folder: boolean): string {
  const encoded = path.split('/').map((name) => encodeURIComponent(name).replace(/%(20|2C|3A|40|26|3D|2B|24)/g, (code) => (code === '%20' ? code : decodeURIComponent(code)))).join('/')
  return folder && path !== '/' ? `#${encoded}/` : `#${encoded}`
}

export function fromHash(hash: string): { path: string; folder: boolean } | null {
  let text = hash.replace(/^#/, '')
  try {
    text = decodeURIComponent(text)
  } catch {
    // a stray % stands for itself
  }
  return text.startsWith('/') ? { path: clean(text), folder: text.endsWith('/') } : null
}

/** Why a name cannot be given; null when it can. */
export function wrongName(name: string): string | null {
  if (name === '') return 'Enter a name.'
  if (name === '.' || name === '..') return 'This name has a meaning of its own.'
  if (name.includes('/')) return 'A name cannot contain a slash.'
  if (name.includes('\0')) return 'A name cannot contain a zero byte.'
  if (new TextEncoder().encode(name).length > NAME_BYTES) return 'This name is too long.'
  return null
}

/** `photo.tar.gz` is `photo` and `.tar.gz`; `.profile` has no extension. */
export function split(name: string): { stem: string; extension: string } {
  const found = /^(.+?)((?:\.tar)?\.[A-Za-z0-9]{1,10})$/.exec(name)
  return found?.[1] && found[2] ? { stem: found[1], extension: found[2] } : { stem: name, extension: '' }
}

/** The name itself if it is free, else `name (2).ext` and so on. */
export function freeName(name: string, taken: ReadonlySet<string>): string {
  if (!taken.has(name)) return name
  const { stem, extension } = split(name)
  const bare = stem.replace(/ \(\d+\)$/, '') || stem
  for (let n = 2; ; n++) {
    const next = `${bare} (${n})${extension}`
    if (!taken.has(next)) return next
  }
}
