import { expect, test } from 'vitest'
import { window } from './window.ts'

test('only rows near the window are drawn', () => {
  expect(window(10_000, 36, 36_000, 720)).toEqual({ from: 992, to: 1028 })
  expect(window(3, 36, 0, 720)).toEqual({ from: 0, to: 3 })
  expect(window(0, 36, 0, 720)).toEqual({ from: 0, to: 0 })
  expect(window(5, 36, 99_999, 720)).toEqual({ from: 5, to: 5 })
})
