// What the page shows, and what it does.
import { signal } from '@preact/signals'
import { words } from '../shared/call.ts'
import { complain, tell } from '../shared/toast.tsx'
import { count } from '../shared/format.ts'
import * as service from './service.ts'
import { look, took } from './cells.ts'
import type { Database, Past, Result, Table } from './service.ts'

export type Status = { is: 'loading' } | { is: 'ready' } | { is: 'failed'; why: string }
export type Outcome =
  | { is: 'nothing' }
  | { is: 'running' }
  | { is: 'done'; results: Result[]; note: string }
  | { is: 'failed'; why: string }

export const status = signal<Status>({ is: 'loading' })
export const databases = signal<Database[]>([])
export const db = signal('')
export const tables = signal<Table[]>([])
/** Why the tables of the database cannot be read. */
export const broken = signal('')
export const sql = signal('')
export const outcome = signal<Outcome>({ is: 'nothing' })
export const past = signal<Past[] | null>(null)
/** The tables, on a screen that has no room for them beside. */
export const drawer = signal(false)

let running: AbortController | null = null

/** What the address says, and what it is to say. */
function fromAddress(): { db: string; sql: string } {
  const said = new URLSearchParams(location.hash.slice(1))
  return { db: said.get('db') ?? '', sql: said.get('sql') ?? '' }
}

function toAddress(): void {
  const said = new URLSearchParams()
  if (db.value) said.set('db', db.value)
  // what is long is no address
  if (sql.value && sql.value.length < 2000) said.set('sql', sql.value)
  const hash = said.toString()
  history.replaceState(null, '', hash ? `#${hash}` : location.pathname + location.search)
}

export async function open(): Promise<void> {
  const wanted = fromAddress()
  sql.value = wanted.sql
  await load(wanted.db)
}

export async function load(wanted = db.value): Promise<void> {
  try {
    databases.value = (await service.databases()).items
    status.value = { is: 'ready' }
  } catch (error) {
    status.value = { is: 'failed', why: words(error) }
    return
  }
  const found = databases.value.find((one) => one.path === wanted || one.name === wanted)
  const next = found ?? databases.value[0]
  if (next) await choose(next.path)
  else db.value = ''
}

export async function choose(path: string): Promise<void> {
  if (path !== db.value) {
    outcome.value = { is: 'nothing' }
    past.value = null
    tables.value = []
  }
  db.value = path
  toAddress()
  await describe()
}

export async function describe(): Promise<void> {
  const of = db.value
  try {
    const found = await service.tables(of)
    if (of !== db.value) return
    tables.value = found.tables
    broken.value = ''
  } catch (error) {
    if (of !== db.value) return
    tables.value = []
    broken.value = words(error)
  }
}

export async function run(text = sql.value): Promise<void> {
  if (!db.value) return
  running?.abort()
  const mine = new AbortController()
  running = mine
  past.value = null
  outcome.value = { is: 'running' }
  toAddress()
  const began = performance.now()
  try {
    const results = await service.run(db.value, text, mine.signal)
    const rows = results.reduce((sum, result) => sum + result.rows.length, 0)
    const changed = results.reduce((sum, result) => sum + (result.changed ?? 0), 0)
    const parts = [count(rows, 'row')]
    if (changed) parts.push(`${count(changed, 'row')} changed`)
    parts.push(took(performance.now() - began))
    outcome.value = { is: 'done', results, note: parts.join(' · ') }
    if (results.some((result) => result.changed !== null)) void describe()
  } catch (error) {
    if (mine.signal.aborted) {
      if (running === mine) outcome.value = { is: 'failed', why: 'Stopped. Nothing of it was written.' }
      return
    }
    outcome.value = { is: 'failed', why: words(error) }
  } finally {
    if (running === mine) running = null
  }
}

export function stop(): void {
  running?.abort()
}

export async function show(table: string): Promise<void> {
  drawer.value = false
  sql.value = look(table)
  await run()
}

export async function make(name: string): Promise<string | null> {
  try {
    const path = await service.make(name)
    await load(path)
    return null
  } catch (error) {
    return words(error)
  }
}

export async function remove(): Promise<void> {
  const gone = db.value
  try {
    await service.remove(gone)
    tell(`${gone.split('/').pop()} is removed.`)
    db.value = ''
    await load('')
  } catch (error) {
    complain(words(error))
  }
}

export async function showPast(): Promise<void> {
  try {
    past.value = await service.history(db.value)
  } catch (error) {
    complain(words(error))
  }
}

export async function clearPast(): Promise<void> {
  try {
    await service.clearHistory(db.value)
    past.value = []
  } catch (error) {
    complain(words(error))
  }
}

export async function maintain(op: Parameters<typeof service.maintain>[1]): Promise<void> {
  try {
    const done = await service.maintain(db.value, op)
    if (op === 'integrity_check') {
      if (done.success) tell('No damage was found.')
      else outcome.value = { is: 'failed', why: `The database is damaged: ${(done.messages ?? []).join('; ')}` }
    } else tell('Done.')
  } catch (error) {
    complain(words(error))
  }
}

export async function take(file: File, table: string | null, format: string): Promise<void> {
  tell(`${file.name} is being imported…`)
  try {
    const done = await service.take(db.value, file, format, table)
    tell(format === 'sqlite' ? `${file.name} is in place.` : `${count(done.rows, 'row')} imported from ${file.name}.`)
    await describe()
  } catch (error) {
    complain(words(error))
  }
}

export function shareLink(): string {
  return service.share(db.value, sql.value)
}
