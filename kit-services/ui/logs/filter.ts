// What is looked for. It is asked of the service for what was, and of each entry for what comes.
import { serviceOf, type Entry, type Level } from './entry.ts'

export interface Filter {
  /** Words in the address, the client or the trace. */
  text: string
  levels: Level[]
  method: string
  service: string
  /** `2xx`, `404`; empty for any. */
  status: string
}

/** Reading this log leaves entries of level debug: they are there when asked for. */
export const USUAL: Level[] = ['info', 'warn', 'error']
export const LEVELS: Level[] = ['debug', ...USUAL]

export const EVERYTHING: Filter = { text: '', levels: USUAL, method: '', service: '', status: '' }

export function isUsual(filter: Filter): boolean {
  return query(filter) === query(EVERYTHING)
}

/** As the service takes it. */
export function query(filter: Filter): string {
  const pairs = new URLSearchParams()
  if (filter.levels.length < LEVELS.length) pairs.set('level', filter.levels.join(','))
  if (filter.text.trim()) pairs.set('search', filter.text.trim())
  if (filter.method) pairs.set('method', filter.method)
  if (filter.service) pairs.set('serviceName', filter.service)
  if (filter.status) pairs.set('status', filter.status)
  return pairs.toString()
}

/** Whether an entry is looked for: the same answer as the service's. */
export function admits(filter: Filter, entry: Entry): boolean {
  const text = filter.text.trim().toLowerCase()
  const parts = [entry.url, entry.clientIp, entry.method, entry.traceId, entry.serviceName]
  return (
    filter.levels.includes(entry.level) &&
    (!filter.method || filter.method === entry.method) &&
    (!filter.service || ofService(filter.service, entry)) &&
    (!filter.status || hasStatus(filter.status, entry.status)) &&
    (!text || parts.some((part) => part?.toLowerCase().includes(text)))
  )
}

function ofService(wanted: string, entry: Entry): boolean {
  const slug = entry.serviceName.split('-', 1)[0]
  return [entry.serviceName, slug, serviceOf(entry)].includes(wanted)
}

function hasStatus(wanted: string, status: number | undefined): boolean {
  if (status === undefined) return false
  return wanted.endsWith('xx') ? String(status)[0] === wanted[0] : String(status) === wanted
}

/** Kept in the address, so that a view can be shared and reloaded. */
export function toHash(filter: Filter): string {
  const pairs = new URLSearchParams()
  if (filter.text) pairs.set('q', filter.text)
  if (filter.levels.join() !== USUAL.join()) pairs.set('level', filter.levels.join(','))
  for (const name of ['method', 'service', 'status'] as const) if (filter[name]) pairs.set(name, filter[name])
  const text = pairs.toString()
  return text ? `#${text}` : ''
}

export function fromHash(hash: string): Filter {
  const pairs = new URLSearchParams(hash.replace(/^#/, ''))
  const given = (pairs.get('level') ?? '').split(',')
  const levels = LEVELS.filter((level) => given.includes(level))
  const status = pairs.get('status') ?? ''
  return {
    text: pairs.get('q') ?? '',
    levels: levels.length ? levels : USUAL,
    method: pairs.get('method') ?? '',
    service: pairs.get('service') ?? '',
    status: /^([1-5]xx|[1-5]\d\d)$/.test(status) ? status : '',
  }
}
