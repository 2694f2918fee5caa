// The requests of the page.
import { call, json, url } from '../shared/call.ts'
import { asks, statements, type Value } from './cells.ts'

export interface Database {
  path: string
  name: string
  bytes: number
  modified_at: number
}

export interface Table {
  name: string
  kind: string
  sql: string | null
  columns: { name: string; type: string; not_null: boolean; primary_key: number; default: string | null }[]
  indexes: string[]
}

export interface Result {
  sql: string
  columns: string[]
  rows: Value[][]
  truncated: boolean
  /** Rows that were changed, where the statement gives none. */
  changed: number | null
}

export interface Past {
  id: number
  sql: string
  kind: string
  success: boolean
  error: string | null
  rows: number
  duration_ms: number
  executed_at: number
}

const BASE = 'api/v1/sqlite'
const of = (db: string) => `db=${encodeURIComponent(db)}`

export async function databases(): Promise<{ items: Database[]; total: number }> {
  return json(`${BASE}/db?limit=1000`)
}

export async function tables(db: string): Promise<{ tables: Table[]; truncated: boolean; bytes: number }> {
  return json(`${BASE}/tables?${of(db)}`)
}

export async function make(name: string): Promise<string> {
  const made = await json<{ path: string }>(`${BASE}/db/create?path=${encodeURIComponent(name)}`, { method: 'POST' })
  return made.path
}

export async function remove(db: string): Promise<void> {
  await call(`${BASE}/db?${of(db)}`, { method: 'DELETE' })
}

export async function history(db: string): Promise<Past[]> {
  return (await json<{ history: Past[] }>(`${BASE}/history?${of(db)}&limit=200`)).history
}

export async function clearHistory(db: string): Promise<void> {
  await call(`${BASE}/history?${of(db)}`, { method: 'DELETE' })
}

interface Item {
  resultHeaders?: string[]
  resultSetList?: Value[][]
  rowsUpdated?: number
  truncated?: boolean
}

/** Run all statements of a text as one transaction. */
export async function run(db: string, text: string, signal: AbortSignal): Promise<Result[]> {
  const wanted = statements(text)
  if (wanted.length === 0) throw new Error('There is no statement to run.')
  const transaction = wanted.map((sql) => (asks(sql) ? { query: sql } : { statement: sql }))
  const done = await json<{ results: Item[] }>(`${BASE}/db?${of(db)}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ resultFormat: 'typed', transaction }),
    signal,
  })
  return done.results.map((item, at) => ({
    sql: wanted[at] ?? '',
    columns: item.resultHeaders ?? [],
    rows: item.resultSetList ?? [],
    truncated: item.truncated ?? false,
    changed: item.rowsUpdated ?? null,
  }))
}

export async function maintain(db: string, op: 'vacuum' | 'integrity_check' | 'wal_checkpoint_truncate'): Promise<{ success: boolean; messages?: string[]; bytes: number }> {
  return json(`${BASE}/maintenance?${of(db)}&timeout=300`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ op }) })
}

/** Where a browser gets a copy. */
export function download(db: string, format: 'sqlite' | 'sql' | 'csv' | 'jsonl', table?: string): string {
  return url(`${BASE}/export?${of(db)}&format=${format}${table ? `&table=${encodeURIComponent(table)}` : ''}`).href
}

export async function take(db: string, file: File, format: string, table: string | null): Promise<{ rows: number; statements: number }> {
  const where = table ? `&table=${encodeURIComponent(table)}` : ''
  return json(`${BASE}/import?${of(db)}&format=${format}${where}&create_db_if_missing=true`, { method: 'POST', headers: { 'content-type': 'application/octet-stream' }, body: file })
}

/** A query as a link, which whoever has it may open. */
export function share(db: string, sql: string): string {
  const bytes = new TextEncoder().encode(sql)
  const base64 = btoa(String.fromCharCode(...bytes)).replaceAll('+', '-').replaceAll('/', '_').replace(/=+$/, '')
  return url(`${BASE}/query?${of(db)}&sql=${base64}`).href
}
