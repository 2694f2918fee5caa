// Sending a request again: what can be, by the browser or by a command, and what cannot.
import { HIDDEN, target, type Entry } from './entry.ts'

export interface Header {
  name: string
  value: string
  /** The log does not have its value. */
  hidden: boolean
}

export interface Plan {
  method: string
  url: string
  headers: Header[]
  /** Why the browser cannot send it; null where it can. */
  barred: string | null
  /** What will differ from the first time. */
  losses: string[]
}

/** Headers that whoever sends the request makes anew. */
const MADE_ANEW = /^(host|connection|content-length|transfer-encoding|te|expect|upgrade|priority|accept-encoding|sec-.*|traceparent|dnt|upgrade-insecure-requests|origin|referer|if-.*)$/

/** What a page may ask of another host without asking that host first (Fetch, section 2.2.2). */
const SIMPLE_METHODS = ['GET', 'HEAD', 'POST']
const SIMPLE_HEADERS = ['accept', 'accept-language']

const WITH_BODY = ['POST', 'PUT', 'PATCH']

export function planOf(entry: Entry): Plan | null {
  const { method, url, data } = entry
  if (!method || !url) return null
  const headers = Object.entries(data.headers ?? {})
    .filter(([name]) => !MADE_ANEW.test(name))
    .map(([name, value]) => ({ name, value, hidden: value === HIDDEN }))
  const losses: string[] = []
  if ((data.bytesIn ?? 0) > 0) losses.push(`Its body of ${data.bytesIn} bytes is not kept, and is sent empty.`)
  else if (WITH_BODY.includes(method)) losses.push('It is sent without a body.')
  if (target(entry).includes(HIDDEN)) losses.push('Its address held a secret that the log does not keep: put it in place of ***.')
  if (url.endsWith('…')) losses.push('Its address was too long for the log, and is cut.')
  const hidden = headers.filter((header) => header.hidden).map((header) => header.name)
  if (hidden.length) losses.push(`The log does not keep ${list(hidden)}. The browser adds its own cookies.`)
  return { method, url, headers, losses, barred: bar(entry, method) }
}

function bar(entry: Entry, method: string): string | null {
  if (entry.data.websocket || entry.data.headers?.['upgrade']) return 'A WebSocket is a conversation; it cannot be sent again.'
  if (!SIMPLE_METHODS.includes(method)) return `A page may not send ${method} to another host. Use the command.`
  return null
}

/** The headers that the browser lets a page send to another host. */
export function sendable(headers: readonly Header[]): Header[] {
  return headers.filter((header) => !header.hidden && SIMPLE_HEADERS.includes(header.name) && header.value.length <= 128)
}

/** The same as a command for a shell. */
export function curl(plan: Plan, url: string, chosen: readonly string[]): string {
  const parts = ['curl', '-i']
  if (plan.method === 'HEAD') parts.push('--head')
  else if (plan.method !== 'GET') parts.push('-X', quoted(plan.method))
  for (const { name, value, hidden } of plan.headers) {
    if (!chosen.includes(name)) continue
    parts.push('-H', quoted(`${name}: ${hidden ? '<your value>' : value}`))
  }
  if (WITH_BODY.includes(plan.method)) parts.push('--data-binary', quoted(''))
  parts.push(quoted(url))
  return parts.join(' ')
}

/** A word of a POSIX shell that means itself. */
export function quoted(text: string): string {
  // a line end within a word would be sent, and a NUL ends it
  const safe = text.replace(/[\0\r\n]/g, '')
  return /^[\w@%+=:,./-]+$/.test(safe) ? safe : `'${safe.replaceAll("'", `'\\''`)}'`
}

function list(words: readonly string[]): string {
  return words.length < 2 ? (words[0] ?? '') : `${words.slice(0, -1).join(', ')} and ${words.at(-1)}`
}
