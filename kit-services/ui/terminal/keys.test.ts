import { expect, test } from 'vitest'
import { modified, sequence, type Key, type Modifiers } from './keys.ts'

const none: Modifiers = { ctrl: false, alt: false }

test('keys as terminals send them', () => {
  const cases: [Key, Partial<Modifiers>, boolean, string][] = [
    ['Up', {}, false, '\x1b[A'],
    ['Up', {}, true, '\x1bOA'],
    ['Left', { ctrl: true }, true, '\x1b[1;5D'],
    ['Right', { alt: true }, false, '\x1b[1;3C'],
    ['Home', {}, false, '\x1b[H'],
    ['PageUp', {}, false, '\x1b[5~'],
    ['PageDown', { ctrl: true, alt: true }, false, '\x1b[6;7~'],
    ['Escape', {}, false, '\x1b'],
    ['Tab', {}, true, '\t'],
    ['Tab', { alt: true }, false, '\x1b\t'],
  ]
  for (const [key, held, application, bytes] of cases) expect(sequence(key, { ...none, ...held }, application), key).toBe(bytes)
})

test('held modifiers change one typed character', () => {
  const cases: [string, Partial<Modifiers>, string][] = [
    ['c', { ctrl: true }, '\x03'],
    ['C', { ctrl: true }, '\x03'],
    ['[', { ctrl: true }, '\x1b'],
    [' ', { ctrl: true }, '\0'],
    ['1', { ctrl: true }, '1'],
    ['é', { ctrl: true }, 'é'],
    ['b', { alt: true }, '\x1bb'],
    ['x', { ctrl: true, alt: true }, '\x1b\x18'],
    ['paste', { ctrl: true }, 'paste'],
    ['', { ctrl: true }, ''],
  ]
  for (const [text, held, bytes] of cases) expect(modified(text, { ...none, ...held }), text).toBe(bytes)
})
