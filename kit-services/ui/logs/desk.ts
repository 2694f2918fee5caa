// What the page shows: entries that were, entries that come, and how they get here.
import { computed, signal } from '@preact/signals'
import { Refused, because, call, json, passing, words } from '../shared/call.ts'
import { complain, tell } from '../shared/toast.tsx'
import { merged, rowsOf, type Entry, type Row } from './entry.ts'
import { admits, fromHash, query, toHash, type Filter } from './filter.ts'
import { Tail, type Line } from './tail.ts'

/** Entries asked for at once. */
const PAGE = 200
/** Entries kept; the oldest make room. They are all still in the log. */
const MOST = 5000
/** Typing settles before the service is asked: it may be asked 30 times a minute. */
const SETTLE_MS = 500
/** Entries that come together are drawn together. */
const DRAW_MS = 80

export type Status = { is: 'loading' } | { is: 'ready' } | { is: 'failed'; why: string }

export const filter = signal<Filter>(fromHash(location.hash))
export const status = signal<Status>({ is: 'loading' })
export const line = signal<Line>({ is: 'connecting' })
export const older = signal<'there' | 'loading' | 'none'>('none')
export const chosen = signal<number | null>(null)
const held = signal<Entry[]>([])

export const rows = computed<Row[]>(() => rowsOf(held.value.filter((entry) => admits(filter.value, entry))))
export const shown = computed<Row | null>(() => {
  const id = chosen.value
  return id === null ? null : (rowsOf(held.value).find((row) => row.entry.id === id) ?? null)
})
/** The services and methods that were seen, to choose from. */
export const services = computed(() => [...new Set(held.value.map((entry) => entry.serviceName))].sort())
export const methods = computed(() => [...new Set(held.value.flatMap((entry) => (entry.method ? [entry.method] : [])))].sort())

let arrived: Entry[] = []
let drawing: ReturnType<typeof setTimeout> | undefined
let settling: ReturnType<typeof setTimeout> | undefined
/** The oldest entry that the service has told of for this filter. */
let oldest: number | null = null
let asked = 0

const tail = new Tail({
  open: (after, signal) => call('_logs/stream', { signal, cache: 'no-store', headers: after === null ? {} : { 'last-event-id': String(after) } }),
  line: (now) => void (line.value = now),
  entry: (entry) => {
    arrived.push(entry)
    drawing ??= setTimeout(draw, DRAW_MS)
  },
  reset: () => {
    // what is shown may be gone: a log that was cleared is empty
    held.value = []
    void load()
  },
})

function draw(): void {
  drawing = undefined
  const fresh = arrived
  arrived = []
  held.value = merged(fresh, held.value, MOST)
}

export async function open(): Promise<void> {
  const newest = await load()
  tail.start(newest)
}

/** Ask for the newest entries of this filter; the newest id, where there is one. */
export async function load(): Promise<number | null> {
  const round = ++asked
  clearTimeout(settling)
  if (status.value.is === 'failed') status.value = { is: 'loading' }
  try {
    const found = await entries(`last=${PAGE}`)
    if (round !== asked) return null
    oldest = found[0]?.id ?? null
    older.value = found.length < PAGE ? 'none' : 'there'
    held.value = merged(found, held.value, MOST)
    status.value = { is: 'ready' }
    return found.at(-1)?.id ?? null
  } catch (error) {
    if (round !== asked) return null
    if (error instanceof Refused && error.status === 429) {
      settling = setTimeout(() => void load(), error.retryAfter ?? 2000)
      if (held.value.length > 0) return null
    }
    status.value = { is: 'failed', why: words(error) }
    if (passing(error)) settling = setTimeout(() => void load(), 5000)
    return null
  }
}

async function entries(wish: string): Promise<Entry[]> {
  return json<Entry[]>(`_logs?${[wish, query(filter.value)].filter(Boolean).join('&')}`, { cache: 'no-store' })
}

/** Entries before those that are here. */
export async function more(): Promise<void> {
  if (older.value !== 'there' || oldest === null || status.value.is !== 'ready') return
  older.value = 'loading'
  const round = asked
  try {
    const found = await entries(`last=${PAGE}&beforeId=${oldest}`)
    if (round !== asked) return
    oldest = found[0]?.id ?? oldest
    held.value = merged(held.value, found, MOST)
    older.value = found.length < PAGE || held.value.length >= MOST ? 'none' : 'there'
  } catch (error) {
    if (round !== asked) return
    // not again by itself: whoever scrolls asks anew
    setTimeout(() => {
      if (older.value === 'loading') older.value = 'there'
    }, 2500)
    complain(because('Older entries could not be read', error))
  }
}

export function look(change: Partial<Filter>): void {
  filter.value = { ...filter.value, ...change }
  history.replaceState(null, '', toHash(filter.value) || location.pathname + location.search)
  asked++
  clearTimeout(settling)
  settling = setTimeout(() => void load(), SETTLE_MS)
}

export function toggle(): void {
  if (line.value.is === 'paused') tail.retry()
  else tail.pause()
}

export function retry(): void {
  tail.retry()
}

export async function clear(): Promise<void> {
  try {
    await call('_logs', { method: 'DELETE' })
    chosen.value = null
    held.value = []
    tell('The log is cleared.')
    await load()
  } catch (error) {
    complain(because('The log could not be cleared', error))
  }
}

/** The first request for this address after an entry: what came of sending it again. */
export function answerTo(method: string, url: string, after: number): Entry | null {
  const found = held.value.filter((entry) => entry.id > after && entry.kind === 'request' && entry.method === method && entry.url === url)
  return found.at(-1) ?? null
}

/** The newest id that is here. */
export function newest(): number {
  return held.value[0]?.id ?? 0
}

/** To the row above or below; from nowhere, to the first. */
export function step(by: number): void {
  const list = rows.value
  const at = list.findIndex((row) => row.entry.id === chosen.value)
  const next = at < 0 ? 0 : Math.min(list.length - 1, Math.max(0, at + by))
  const row = list[next]
  if (row) chosen.value = row.entry.id
}
