import { expect, test } from 'vitest'
import { duration, isOpen, merged, rowsOf, serviceOf, target, time, tone, type Entry } from './entry.ts'

const entry = (id: number, more: Partial<Entry> = {}): Entry => ({
  id,
  traceId: `t${id}`,
  tsMs: 0,
  tsIso: '',
  kind: 'request',
  level: 'info',
  serviceName: 'terminal',
  data: { durationMs: 1 },
  ...more,
})

test('an end stands with its beginning', () => {
  const begun = entry(1, { traceId: 'ws', data: {} })
  const other = entry(2)
  const end = entry(3, { traceId: 'ws', kind: 'response', data: { durationMs: 5 } })
  const rows = rowsOf([end, other, begun])
  expect(rows.map((row) => row.entry.id)).toEqual([2, 1])
  expect(rows[1]?.end?.id).toBe(3)
  expect(rows.map(isOpen)).toEqual([false, false])
  expect(rowsOf([begun]).map(isOpen)).toEqual([true])
  // the beginning is not here: the end stands for itself
  expect(rowsOf([end, other]).map((row) => row.entry.id)).toEqual([3, 2])
  // requests of one trace are no ends of one another
  expect(rowsOf([entry(5, { traceId: 'a' }), entry(4, { traceId: 'a' })]).length).toBe(2)
})

test('lists become one, the newest first and bounded', () => {
  const ids = (list: Entry[]) => list.map((one) => one.id)
  expect(ids(merged([entry(5), entry(3)], [entry(4), entry(3)], 9))).toEqual([5, 4, 3])
  expect(ids(merged([entry(1)], [entry(2), entry(3)], 2))).toEqual([3, 2])
})

test('words for what an entry says', () => {
  const cases: [string | undefined, string][] = [
    ['https://h.example:8443/a/b?c=d', '/a/b?c=d'],
    ['https://h.example', '/'],
    ['/a', '/a'],
    [undefined, ''],
  ]
  for (const [url, path] of cases) expect(target({ ...entry(1), ...(url ? { url } : {}) })).toBe(path)
  expect(serviceOf(entry(1, { data: { index: 2 } }))).toBe('terminal-2')
  expect(serviceOf(entry(1, { serviceName: 'http-3000' }))).toBe('http-3000')
  expect([undefined, 0.42, 9.96, 12.3, 3210, 240_000, 5_400_000].map(duration)).toEqual(['—', '0.4 ms', '10 ms', '12 ms', '3.2 s', '4 min', '1.5 h'])
  const noon = new Date(2026, 10, 24, 12, 0, 1, 7).getTime()
  expect(time(noon, noon)).toBe('12:00:01.007')
  expect(time(noon, noon + 86_400_000)).toMatch(/24.* 12:00:01\.007/)
  expect(tone(entry(1, { status: 200 }))).toBe('good')
  expect(tone(entry(1, { status: 302 }))).toBe('plain')
  expect(tone(entry(1, { status: 502, level: 'error' }))).toBe('bad')
})
