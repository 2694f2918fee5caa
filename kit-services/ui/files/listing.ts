// What a folder holds, and in which order it is shown.
import { instant } from '../shared/format.ts'
import { join } from './paths.ts'

/** One entry as the service tells it. */
export interface PathItem {
  name?: unknown
  path_type?: unknown
  size?: unknown
  mtime?: unknown
}

export interface Listing {
  kind?: unknown
  paths?: unknown
  allow_archive?: unknown
  allow_upload?: unknown
  truncated?: unknown
}

export interface Item {
  name: string
  path: string
  folder: boolean
  link: boolean
  /** Bytes; null for folders. */
  size: number | null
  /** Milliseconds since 1970. */
  at: number | null
}

export type By = 'name' | 'size' | 'at'

export interface Order {
  by: By
  down: boolean
}

/** The entries of a listing; those that make no sense are left out. */
export function itemsOf(listing: Listing, dir: string): Item[] {
  if (!Array.isArray(listing.paths)) return []
  const items: Item[] = []
  for (const entry of listing.paths as PathItem[]) {
    const name = typeof entry?.name === 'string' ? entry.name : ''
    if (!name || name === '.' || name === '..' || name.includes('/')) continue
    const type = String(entry.path_type)
    const folder = type === 'Dir' || type === 'SymlinkDir'
    items.push({
      name,
      path: join(dir, name),
      folder,
      link: type.startsWith('Symlink'),
      size: !folder && typeof entry.size === 'number' ? entry.size : null,
      at: instant(typeof entry.mtime === 'number' ? entry.mtime : null),
    })
  }
  return items
}

const collator = new Intl.Collator(undefined, { numeric: true, sensitivity: 'base' })

/** Folders first; equal sizes and times fall back to the name, so that an order is always the same. */
export function ordered(items: readonly Item[], { by, down }: Order): Item[] {
  const sign = down ? -1 : 1
  const names = (a: Item, b: Item) => collator.compare(a.name, b.name) || (a.name < b.name ? -1 : 1)
  return [...items].sort((a, b) => {
    if (a.folder !== b.folder) return a.folder ? -1 : 1
    if (by === 'size' && !a.folder && a.size !== b.size) return sign * ((a.size ?? 0) - (b.size ?? 0))
    if (by === 'at' && a.at !== b.at) return sign * ((a.at ?? 0) - (b.at ?? 0))
    return by === 'name' ? sign * names(a, b) : names(a, b)
  })
}

export function hidden(name: string): boolean {
  return name.startsWith('.')
}

/** Entries whose name holds every word of the filter. */
export function filtered(items: readonly Item[], text: string): Item[] {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean)
  if (words.length === 0) return [...items]
  return items.filter((item) => {
    const name = item.name.toLowerCase()
    return words.every((word) => name.includes(word))
  })
}
