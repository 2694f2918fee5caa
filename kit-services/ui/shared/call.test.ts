import { expect, test } from 'vitest'
import { Refused, Unreachable, passing, refusal } from './call.ts'

test('a refusal says what its body says', () => {
  const cases: [string, string, string][] = [
    ['application/json', '{"success":false,"error":"no such file"}', 'no such file'],
    ['application/json', '{"error":"NOT_FOUND","message":"no file `a`"}', 'no file `a`'],
    ['application/json', '{"error":{}}', 'There is nothing here.'],
    ['application/json', 'oops', 'There is nothing here.'],
    ['text/plain; charset=utf-8', ' gone \n', 'gone'],
    ['text/html', '<h1>404</h1>', 'There is nothing here.'],
    ['', '', 'There is nothing here.'],
  ]
  for (const [type, body, message] of cases) expect(refusal(404, type, body, null).message).toBe(message)
})

test('only a passing failure is worth another try', () => {
  expect(passing(new Unreachable())).toBe(true)
  expect(passing(new Refused('', 503))).toBe(true)
  expect(passing(new Refused('', 404))).toBe(false)
  expect(passing(new Error('bug'))).toBe(false)
  expect(refusal(503, '', '', '5').retryAfter).toBe(5000)
  expect(refusal(503, '', '', '9999').retryAfter).toBe(30_000)
  expect(refusal(503, '', '', 'Wed, 21 Oct 2026 07:28:00 GMT').retryAfter).toBeNull()
})
