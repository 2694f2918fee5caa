import { expect, test } from 'vitest'
import { ago, count, instant, size } from './format.ts'

test('sizes have three digits at most', () => {
  const cases: [number, string][] = [
    [0, '0 B'],
    [1, '1 B'],
    [999, '999 B'],
    [1000, '1 KB'],
    [1234, '1.23 KB'],
    [12_345, '12.3 KB'],
    [999_400, '999 KB'],
    [999_600, '1 MB'],
    [1_500_000_000, '1.5 GB'],
    [2e18, '2000 PB'],
    [-1, '—'],
  ]
  for (const [bytes, text] of cases) expect(size(bytes)).toBe(text)
})

test('seconds and milliseconds are told apart', () => {
  expect(instant(1_760_000_000)).toBe(1_760_000_000_000)
  expect(instant(1_760_000_000_000)).toBe(1_760_000_000_000)
  expect(instant(0)).toBeNull()
  expect(instant(undefined)).toBeNull()
})

test('ages and counts', () => {
  expect(ago(0, 10_000)).toBe('just now')
  expect(ago(0, 120_000)).toBe('2 min ago')
  expect(ago(0, 3 * 3600_000)).toBe('3 h ago')
  expect(ago(0, 72 * 3600_000)).toBe('3 d ago')
  expect(count(1, 'file')).toBe('1 file')
  expect(count(2, 'entry', 'entries')).toBe('2 entries')
})
