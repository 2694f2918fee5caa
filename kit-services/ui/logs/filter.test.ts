import { expect, test } from 'vitest'
import type { Entry } from './entry.ts'
import { EVERYTHING, LEVELS, admits, fromHash, isUsual, query, toHash, type Filter } from './filter.ts'

const entry: Entry = {
  id: 1,
  traceId: 'abc',
  tsMs: 0,
  tsIso: '',
  kind: 'request',
  level: 'warn',
  serviceName: 'http-3000',
  method: 'GET',
  url: 'https://h.example/Some/Path?a=1',
  clientIp: '192.0.2.7',
  status: 404,
  data: {},
}

const of = (more: Partial<Filter>): Filter => ({ ...EVERYTHING, ...more })

test('an entry is admitted as the service would', () => {
  const cases: [Partial<Filter>, boolean][] = [
    [{}, true],
    [{ text: ' some/path ' }, true],
    [{ text: '192.0.2' }, true],
    [{ text: 'other' }, false],
    [{ levels: ['info'] }, false],
    [{ method: 'GET' }, true],
    [{ method: 'POST' }, false],
    [{ service: 'http' }, true],
    [{ service: 'http-3000' }, true],
    [{ service: 'http-30' }, false],
    [{ status: '4xx' }, true],
    [{ status: '404' }, true],
    [{ status: '5xx' }, false],
  ]
  for (const [filter, expected] of cases) expect(admits(of(filter), entry), JSON.stringify(filter)).toBe(expected)
  const { status: _, ...unanswered } = entry
  expect(admits(of({ status: '4xx' }), unanswered)).toBe(false)
  expect(admits(EVERYTHING, { ...entry, level: 'debug' })).toBe(false)
})

test('the service is asked the same', () => {
  expect(query(EVERYTHING)).toBe('level=info%2Cwarn%2Cerror')
  expect(query(of({ levels: LEVELS, text: ' a b ', status: '5xx', service: 'n', method: 'PUT' }))).toBe('search=a+b&method=PUT&serviceName=n&status=5xx')
  expect(isUsual(of({ text: '  ' }))).toBe(true)
  expect(isUsual(of({ status: '404' }))).toBe(false)
})

test('the address keeps a view', () => {
  const views: Filter[] = [EVERYTHING, of({ text: 'a&b=c#d', levels: ['debug', 'error'], method: 'PUT', service: 'http-3000', status: '5xx' })]
  for (const view of views) expect(fromHash(toHash(view))).toEqual(view)
  expect(toHash(EVERYTHING)).toBe('')
  expect(fromHash('#level=nonsense&status=<b>')).toEqual(EVERYTHING)
})
