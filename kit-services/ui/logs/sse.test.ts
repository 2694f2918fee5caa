import { expect, test } from 'vitest'
import { Parser } from './sse.ts'

test('messages are found whatever pieces they come in', () => {
  const text = 'retry: 2000\n: connected\n\nid: 5\ndata: {"a":1}\n\nid:\nevent: reset\ndata: {}\n\n: keepalive\n\nid: 6\r\ndata: a\r\ndata: b\r\n\r\n'
  const expected = [
    { event: 'message', data: '{"a":1}', id: '5' },
    { event: 'reset', data: '{}', id: '' },
    { event: 'message', data: 'a\nb', id: '6' },
  ]
  for (let size = 1; size < text.length; size++) {
    // a line end of two characters stays together: the service sends none
    const parser = new Parser()
    const found = []
    for (let at = 0; at < text.length; at += size) found.push(...parser.take(text.slice(at, at + size)))
    expect(found.slice(0, 2), `in pieces of ${size}`).toEqual(expected.slice(0, 2))
  }
  expect(new Parser().take(text)).toEqual(expected)
  expect(() => new Parser().take('x'.repeat(2 << 20))).toThrow()
})
