// The files service, as this page needs it.
import { Refused, Unreachable, call, json, refusal, url } from '../shared/call.ts'
import { instant } from '../shared/format.ts'
import { itemsOf, type Item, type Listing } from './listing.ts'
import { contentsUrl, operationUrl, parent } from './paths.ts'

export interface Folder {
  items: Item[]
  /** The service has more than it told. */
  partial: boolean
  /** The service packs folders into archives. */
  archives: boolean
  writable: boolean
}

export interface Facts {
  folder: boolean
  size: number
  at: number | null
  permissions: string | null
  owner: string | null
  group: string | null
  target: string | null
}

/** Longest that listing and changing may take; bytes travel as long as they need. */
const ANSWER_MS = 20_000

function soon(signal?: AbortSignal): AbortSignal {
  const limit = AbortSignal.timeout(ANSWER_MS)
  return signal ? AbortSignal.any([signal, limit]) : limit
}

/** A request that is expected to be answered soon; no answer in time counts as none. */
async function ask(path: string, init: RequestInit = {}): Promise<Response> {
  try {
    return await call(path, { ...init, signal: soon(init.signal ?? undefined) })
  } catch (error) {
    if (error instanceof DOMException && error.name === 'TimeoutError') throw new Unreachable()
    throw error
  }
}

/** A folder comes in parts; of one with more entries than this, the first are shown. */
const MOST_ENTRIES = 100_000

export async function list(dir: string, signal?: AbortSignal): Promise<Folder> {
  const first = await part(dir, 0, signal)
  const items = itemsOf(first, dir)
  let last = first
  while (last.truncated === true && items.length < MOST_ENTRIES) {
    last = await part(dir, items.length, signal)
    const more = itemsOf(last, dir)
    if (more.length === 0) break
    for (const item of more) items.push(item)
  }
  return {
    items,
    partial: last.truncated === true,
    archives: first.allow_archive === true,
    writable: first.allow_upload !== false,
  }
}

async function part(dir: string, offset: number, signal?: AbortSignal): Promise<Listing> {
  const stop = new AbortController()
  signal?.addEventListener('abort', () => stop.abort(), { once: true })
  const response = await ask(offset > 0 ? `${contentsUrl(dir)}?offset=${offset}` : contentsUrl(dir), { signal: stop.signal, cache: 'no-store', headers: { accept: 'application/json' } })
  const found = /\bjson\b/.test(response.headers.get('content-type') ?? '') ? ((await response.json()) as Listing) : null
  if (found?.kind !== 'Index' && !Array.isArray(found?.paths)) {
    // the path is a file, and this is its contents
    stop.abort()
    throw new Refused('This is not a folder.', 400)
  }
  return found
}

interface Stat {
  path_type?: unknown
  size?: unknown
  mtime?: unknown
  permissions?: unknown
  owner?: unknown
  group?: unknown
  symlink_target?: unknown
}

export async function stat(path: string): Promise<Facts> {
  const found = await json<Stat>(operationUrl('stat', path), { signal: soon(), cache: 'no-store' })
  const text = (value: unknown) => (typeof value === 'string' && value ? value : null)
  return {
    folder: found.path_type === 'Dir' || found.path_type === 'SymlinkDir',
    size: typeof found.size === 'number' ? found.size : 0,
    at: instant(typeof found.mtime === 'number' ? found.mtime : null),
    permissions: text(found.permissions),
    owner: text(found.owner),
    group: text(found.group),
    target: text(found.symlink_target),
  }
}

/** Whether something is there. */
export async function exists(path: string): Promise<boolean> {
  try {
    await stat(path)
    return true
  } catch (error) {
    if (error instanceof Refused && error.status === 404) return false
    throw error
  }
}

export async function makeFolder(path: string): Promise<void> {
  await ask(`${contentsUrl(path)}?mkdir=`, { method: 'POST' })
}

export async function remove(path: string): Promise<void> {
  await call(contentsUrl(path), { method: 'DELETE' })
}

export async function move(from: string, to: string): Promise<void> {
  await call(`${operationUrl('move', from)}?${new URLSearchParams({ move_to: to })}`, { method: 'POST' })
}

export async function copy(from: string, to: string, overwrite: boolean): Promise<void> {
  await call(`${operationUrl('copy', from)}?${new URLSearchParams({ copy_to: to, overwrite: String(overwrite) })}`, { method: 'POST' })
}

export interface Contents {
  bytes: Uint8Array<ArrayBuffer>
  /** There is more than was asked for. */
  more: boolean
  etag: string | null
}

/** The first `most` bytes of a file. */
export async function read(path: string, most: number, signal: AbortSignal): Promise<Contents> {
  const response = await call(contentsUrl(path), { signal, cache: 'no-store', headers: { range: `bytes=0-${most}` } }).catch((error: unknown) => {
    // an empty file has no first byte
    if (error instanceof Refused && error.status === 416) return null
    throw error
  })
  if (!response) return { bytes: new Uint8Array(), more: false, etag: null }
  const etag = response.headers.get('etag')
  const parts: Uint8Array[] = []
  let length = 0
  const reader = response.body?.getReader()
  while (reader && length <= most) {
    const { value, done } = await reader.read()
    if (done) break
    parts.push(value)
    length += value.length
  }
  await reader?.cancel().catch(() => undefined)
  const bytes = new Uint8Array(Math.min(length, most))
  let at = 0
  for (const part of parts) {
    if (at >= bytes.length) break
    bytes.set(part.subarray(0, bytes.length - at), at)
    at += part.length
  }
  return { bytes, more: length > most, etag }
}

/** The file changed since it was read. */
export class Changed extends Error {
  override name = 'Changed'
}

/** Make an empty file where nothing is. */
export async function makeFile(path: string): Promise<void> {
  try {
    await call(contentsUrl(path), { method: 'PUT', body: new Blob([]), headers: { 'content-type': 'application/octet-stream', 'if-none-match': '*' } })
  } catch (error) {
    if (error instanceof Refused && error.status === 412) throw new Refused('something of that name is already there', 409)
    throw error
  }
}

/** Put text in place; with `etag`, only if the file is still the one that was read. */
export async function write(path: string, text: string, etag: string | null): Promise<string | null> {
  const headers: Record<string, string> = { 'content-type': 'application/octet-stream' }
  if (etag) headers['if-match'] = etag
  try {
    const response = await call(contentsUrl(path), { method: 'PUT', body: new Blob([text]), headers })
    return response.headers.get('etag')
  } catch (error) {
    if (error instanceof Refused && error.status === 412) throw new Changed('The file was changed by somebody else.')
    throw error
  }
}

export interface Sending {
  done: Promise<void>
  cancel: () => void
}

/** Send a file; the browser reads it from the disk as it goes. */
export function send(path: string, body: Blob, progress: (sent: number) => void): Sending {
  const request = new XMLHttpRequest()
  const done = new Promise<void>((resolve, reject) => {
    request.open('PUT', url(contentsUrl(path)))
    request.setRequestHeader('content-type', 'application/octet-stream')
    request.upload.onprogress = (event) => progress(event.loaded)
    request.onload = () => {
      if (request.status >= 200 && request.status < 300) return resolve()
      reject(refusal(request.status, request.getResponseHeader('content-type') ?? '', request.responseText, request.getResponseHeader('retry-after')))
    }
    request.onerror = () => reject(new Unreachable())
    request.onabort = () => reject(new DOMException('cancelled', 'AbortError'))
    request.send(body)
  })
  return { done, cancel: () => request.abort() }
}

/** The names in the folder of `path`. */
export async function namesBeside(path: string): Promise<Set<string>> {
  const { items } = await list(parent(path))
  return new Set(items.map((item) => item.name))
}
