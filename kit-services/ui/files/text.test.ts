import { expect, test } from 'vitest'
import { textOf } from './text.ts'

const bytes = (text: string) => new TextEncoder().encode(text)

test('text is UTF-8 without zero bytes', () => {
  expect(textOf(bytes('héllo'), false)).toEqual({ text: 'héllo', ends: '\n' })
  expect(textOf(bytes('\ufeffbom'), false)?.text).toBe('\ufeffbom')
  expect(textOf(new Uint8Array(), false)?.text).toBe('')
  expect(textOf(bytes('a\0b'), false)).toBeNull()
  expect(textOf(Uint8Array.of(0xff, 0xfe, 0x41), false)).toBeNull()
})

test('a character cut in two does not make text something else', () => {
  for (const text of ['ab€', 'abé', 'ab🚀', 'abc']) {
    const all = bytes(text)
    for (let n = 3; n <= all.length; n++) expect(textOf(all.subarray(0, n), true)?.text.startsWith('ab'), `${text} ${n}`).toBe(true)
  }
  expect(textOf(bytes('abé').subarray(0, 3), false)).toBeNull()
})

test('line endings', () => {
  expect(textOf(bytes('a\nb\n'), false)?.ends).toBe('\n')
  expect(textOf(bytes('a\r\nb\r\n'), false)?.ends).toBe('\r\n')
  expect(textOf(bytes('a\r\nb\n'), false)?.ends).toBe('mixed')
  expect(textOf(bytes('a\rb'), false)?.ends).toBe('mixed')
})
