// What the service tells of a request, and how it is put into words.

export type Level = 'debug' | 'info' | 'warn' | 'error'

/** An entry of the log, as the service sends it. */
export interface Entry {
  id: number
  traceId: string
  tsMs: number
  tsIso: string
  kind: 'request' | 'response' | 'event'
  level: Level
  serviceName: string
  method?: string
  url?: string
  clientIp?: string
  status?: number
  data: {
    index?: number
    http?: string
    scheme?: string
    durationMs?: number
    upstreamMs?: number
    bytesIn?: number
    bytesOut?: number
    userAgent?: string
    contentType?: string
    refusal?: string
    fault?: string
    websocket?: boolean
    headers?: Record<string, string>
    event?: string
    message?: string
  }
}

/** An entry, and for a request that stayed open, the one that tells of its end. */
export interface Row {
  entry: Entry
  end: Entry | null
}

/** What the service puts in place of a secret. */
export const HIDDEN = '***'

/** Whether the answer of a request is still under way. */
export function isOpen({ entry, end }: Row): boolean {
  return entry.kind === 'request' && entry.data.durationMs === undefined && end === null
}

/** The newest entries first; an end stands with its beginning, where both are here. */
export function rowsOf(entries: readonly Entry[]): Row[] {
  const ends = new Map<string, Entry>()
  const begun = new Set<string>()
  for (const entry of entries) {
    if (entry.kind === 'response') ends.set(entry.traceId, entry)
    // only what stays open has an end of its own
    else if (entry.kind === 'request' && entry.data.durationMs === undefined) begun.add(entry.traceId)
  }
  const rows: Row[] = []
  for (const entry of entries) {
    if (entry.kind === 'response' && begun.has(entry.traceId)) continue
    const opens = entry.kind === 'request' && entry.data.durationMs === undefined
    rows.push({ entry, end: opens ? (ends.get(entry.traceId) ?? null) : null })
  }
  return rows
}

/** Two lists, the newest first, as one; of an entry in both, one. At most so many, the newest. */
export function merged(one: readonly Entry[], other: readonly Entry[], most: number): Entry[] {
  const all = new Map<number, Entry>()
  for (const entry of [...one, ...other]) all.set(entry.id, entry)
  return [...all.values()].sort((a, b) => b.id - a.id).slice(0, most)
}

/** `/path?query` of an entry. */
export function target({ url }: Entry): string {
  if (!url) return ''
  const at = url.indexOf('://')
  if (at < 0) return url
  const slash = url.indexOf('/', at + 3)
  return slash < 0 ? '/' : url.slice(slash)
}

/** The service and its number, as its host names them. */
export function serviceOf({ serviceName, data }: Entry): string {
  return data.index === undefined ? serviceName : `${serviceName}-${data.index}`
}

/** `0.4 ms`, `12 ms`, `3.2 s`, `4 min`. */
export function duration(ms: number | undefined): string {
  if (ms === undefined) return '—'
  if (ms < 10) return `${Math.round(ms * 10) / 10} ms`
  if (ms < 1000) return `${Math.round(ms)} ms`
  if (ms < 60_000) return `${Math.round(ms / 100) / 10} s`
  if (ms < 3_600_000) return `${Math.round(ms / 60_000)} min`
  return `${Math.round(ms / 360_000) / 10} h`
}

const clock = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', second: '2-digit', hour12: false })
const day = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'short' })

/** The time of day to a millisecond; with the day where it is another one. */
export function time(at: number, now: number): string {
  const text = `${clock.format(at)}.${String(Math.floor(at) % 1000).padStart(3, '0')}`
  return new Date(at).toDateString() === new Date(now).toDateString() ? text : `${day.format(at)} ${text}`
}

/** How a status is coloured. */
export function tone({ level, status }: Entry): 'good' | 'plain' | 'warn' | 'bad' | 'quiet' {
  if (level === 'error') return 'bad'
  if (level === 'warn') return 'warn'
  if (level === 'debug') return 'quiet'
  return status !== undefined && status >= 200 && status < 300 ? 'good' : 'plain'
}

const ANSWERS: Record<number, string> = {
  101: 'Switching Protocols',
  200: 'OK',
  201: 'Created',
  202: 'Accepted',
  204: 'No Content',
  206: 'Partial Content',
  301: 'Moved Permanently',
  302: 'Found',
  303: 'See Other',
  304: 'Not Modified',
  307: 'Temporary Redirect',
  308: 'Permanent Redirect',
  400: 'Bad Request',
  401: 'Unauthorized',
  403: 'Forbidden',
  404: 'Not Found',
  405: 'Method Not Allowed',
  408: 'Request Timeout',
  409: 'Conflict',
  413: 'Content Too Large',
  429: 'Too Many Requests',
  499: 'The client left before the answer',
  500: 'Internal Server Error',
  502: 'Bad Gateway',
  503: 'Service Unavailable',
  504: 'Gateway Timeout',
}

export function answer(status: number | undefined): string {
  if (status === undefined) return 'No answer'
  const words = ANSWERS[status]
  return words ? `${status} ${words}` : String(status)
}
