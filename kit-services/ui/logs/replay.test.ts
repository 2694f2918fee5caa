import { execFileSync } from 'node:child_process'
import { expect, test } from 'vitest'
import type { Entry } from './entry.ts'
import { curl, planOf, quoted, sendable, type Plan } from './replay.ts'

const entry = (more: Partial<Entry>, data: Entry['data'] = {}): Entry => ({
  id: 1,
  traceId: 't',
  tsMs: 0,
  tsIso: '',
  kind: 'request',
  level: 'info',
  serviceName: 'files',
  method: 'GET',
  url: 'https://h.example/a?b=c',
  status: 200,
  data,
  ...more,
})

const plan = (more: Partial<Entry>, data: Entry['data'] = {}) => planOf(entry(more, data)) as Plan

test('a plan says what cannot be sent again', () => {
  expect(plan({}).barred).toBe(null)
  expect(plan({}).losses).toEqual([])
  expect(plan({ method: 'DELETE' }).barred).toContain('DELETE')
  expect(plan({}, { websocket: true }).barred).toContain('WebSocket')
  expect(plan({ method: 'POST' }, { bytesIn: 5 }).losses[0]).toContain('5 bytes')
  expect(plan({ url: 'https://h.example/?token=***' }).losses[0]).toContain('***')
  const hidden = plan({}, { headers: { cookie: '***', 'x-gate': '***', accept: '*/*', host: 'h', 'sec-fetch-mode': 'cors' } })
  expect(hidden.losses[0]).toContain('cookie and x-gate')
  expect(hidden.headers.map((header) => header.name)).toEqual(['cookie', 'x-gate', 'accept'])
  expect(sendable(hidden.headers).map((header) => header.name)).toEqual(['accept'])
  const { method: _, ...event } = entry({ kind: 'event' })
  expect(planOf(event)).toBe(null)
})

test('a command says the same', () => {
  const put = plan({ method: 'PUT' }, { headers: { accept: 'a b', cookie: '***', 'user-agent': 'x' } })
  expect(curl(put, put.url, ['accept', 'cookie'])).toBe(`curl -i -X PUT -H 'accept: a b' -H 'cookie: <your value>' --data-binary '' 'https://h.example/a?b=c'`)
  expect(curl(plan({ method: 'HEAD' }), 'https://h.example/', [])).toBe('curl -i --head https://h.example/')
})

test('a shell reads a quoted word as it was', () => {
  const words = ["it's", 'a b', '$(touch /tmp/x)', '`id`', '"; rm -rf /', '\\', '-x', '', 'é*?[', "''", '!history', '~', '#']
  for (const word of words) {
    const said = execFileSync('sh', ['-c', `printf %s ${quoted(word)}`], { encoding: 'utf8' })
    expect(said).toBe(word)
  }
  expect(quoted('a\nb\r\0')).toBe('ab')
})
