import { expect, test } from 'vitest'
import { INPUT_FRAME, binaryInput, decode, hello, input, pause, resize, resume } from './frames.ts'

const bytes = (text: string) => new TextEncoder().encode(text)
const frame = (text: string) => bytes(text).buffer as ArrayBuffer

test('the first frame is JSON and carries the size', () => {
  expect(JSON.parse(hello({ columns: 80, rows: 24 }))).toEqual({ command: '{', columns: 80, rows: 24 })
  expect(JSON.parse(hello({ columns: 1, rows: 1 }, 't'))).toMatchObject({ token: 't' })
  expect(hello({ columns: 80, rows: 24 })[0]).toBe('{')
})

test('a resize starts with its command', () => {
  const text = resize({ columns: 100, rows: 30 })
  expect(text[0]).toBe('1')
  expect(JSON.parse(text.slice(1))).toEqual({ command: '1', columns: 100, rows: 30 })
})

test('input is UTF-8 behind its command, and long input is cut', () => {
  expect(input('é')).toEqual([Uint8Array.of(0x30, 0xc3, 0xa9)])
  expect(input('')).toEqual([])
  const frames = input('x'.repeat(INPUT_FRAME * 2 + 1))
  expect(frames.map((part) => part.length)).toEqual([INPUT_FRAME + 1, INPUT_FRAME + 1, 2])
  expect(frames.every((part) => part[0] === 0x30)).toBe(true)
  expect(binaryInput('\xff\x00')).toEqual([Uint8Array.of(0x30, 0xff, 0)])
})

test('pause and resume are single bytes', () => {
  expect([...pause()]).toEqual([0x32])
  expect([...resume()]).toEqual([0x33])
})

test('frames of the server', () => {
  expect(decode(frame('0hi'))).toEqual({ is: 'output', bytes: bytes('hi') })
  expect(decode(frame('1~/src — zsh'))).toEqual({ is: 'title', text: '~/src — zsh' })
  expect(decode(frame('2{"fontSize":15}'))).toEqual({ is: 'preferences', values: { fontSize: 15 } })
  expect(decode(frame('2{"preferences":{"fontSize":15}}'))).toEqual({ is: 'preferences', values: { fontSize: 15 } })
  expect(decode(frame('37'))).toEqual({ is: 'terminal', id: '7' })
  expect(decode(frame('4bash\n'))).toEqual({ is: 'shell', name: 'bash' })
})

test('a frame that makes no sense does no harm', () => {
  expect(decode(new ArrayBuffer(0))).toBeNull()
  for (const text of ['2', '2[]', '2null', '2{', '2"x"', '2{"preferences":[]}']) {
    const found = decode(frame(text))
    expect(found?.is, text).toBe('preferences')
  }
  expect(decode(frame('zoom'))).toEqual({ is: 'output', bytes: bytes('zoom') })
  expect(decode(frame('0'))).toEqual({ is: 'output', bytes: new Uint8Array() })
})
