import { expect, test } from 'vitest'
import { RECONNECT, delay } from './backoff.ts'

test('waits grow, stay bounded and are spread', () => {
  let last = 0
  for (let n = 0; n < 200; n++) {
    const high = delay(n, 1)
    const low = delay(n, 0)
    expect(high).toBeGreaterThanOrEqual(last)
    expect(high).toBeLessThanOrEqual(RECONNECT.most)
    expect(low).toBeGreaterThan(0)
    expect(low).toBeLessThan(high)
    last = high
  }
  expect(delay(0, 1)).toBe(RECONNECT.first)
})
