import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { Refused } from '../shared/call.ts'
import type { Entry } from './entry.ts'
import { Tail, type Line } from './tail.ts'

/** A service whose streams the test writes. */
class Stage {
  asked: (number | null)[] = []
  lines: Line['is'][] = []
  entries: number[] = []
  resets = 0
  refuse: Error | null = null
  #writer: ReadableStreamDefaultController<Uint8Array> | null = null
  tail = new Tail({
    open: (after, signal) => {
      this.asked.push(after)
      if (this.refuse) return Promise.reject(this.refuse)
      const body = new ReadableStream<Uint8Array>({ start: (writer) => void (this.#writer = writer) })
      signal.addEventListener('abort', () => this.end())
      return Promise.resolve(new Response(body))
    },
    line: (line) => void this.lines.push(line.is),
    entry: (entry: Entry) => void this.entries.push(entry.id),
    reset: () => void this.resets++,
    random: () => 1,
  })
  say(text: string) {
    this.#writer?.enqueue(new TextEncoder().encode(text))
    return vi.advanceTimersByTimeAsync(0)
  }
  end() {
    try {
      this.#writer?.close()
    } catch {
      // it has ended before
    }
    return vi.advanceTimersByTimeAsync(0)
  }
}

const entry = (id: number) => `id: ${id}\ndata: {"id":${id}}\n\n`

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

test('a line that is lost comes back after the last entry', async () => {
  const stage = new Stage()
  stage.tail.start(3)
  await stage.say(': connected\n\n')
  await stage.say(entry(4) + entry(5))
  await stage.end()
  expect(stage.lines).toEqual(['connecting', 'live', 'waiting'])
  await vi.advanceTimersByTimeAsync(500)
  await stage.say(entry(6))
  expect(stage.asked).toEqual([3, 5])
  expect(stage.entries).toEqual([4, 5, 6])
  stage.tail.close()
})

test('a refusal is waited out as long as it says', async () => {
  const stage = new Stage()
  stage.refuse = new Refused('too many', 429, 2000)
  stage.tail.start(null)
  await vi.advanceTimersByTimeAsync(1900)
  expect(stage.asked.length).toBe(1)
  stage.refuse = null
  await vi.advanceTimersByTimeAsync(200)
  expect(stage.asked.length).toBe(2)
  expect(stage.lines.at(-1)).toBe('live')
  stage.tail.close()
})

test('silence is a lost line', async () => {
  const stage = new Stage()
  stage.tail.start(null)
  await stage.say(': connected\n\n')
  await vi.advanceTimersByTimeAsync(39_000)
  await stage.say(': keepalive\n\n')
  await vi.advanceTimersByTimeAsync(39_000)
  expect(stage.lines.at(-1)).toBe('live')
  await vi.advanceTimersByTimeAsync(2_000)
  expect(stage.asked.length).toBe(2)
  stage.tail.close()
})

test('a pause keeps the place, and what is over stays so', async () => {
  const stage = new Stage()
  stage.tail.start(null)
  await stage.say(entry(8))
  stage.tail.pause()
  await vi.advanceTimersByTimeAsync(60_000)
  expect(stage.lines.at(-1)).toBe('paused')
  stage.tail.retry()
  await stage.say('id:\nevent: reset\ndata: {}\n\n')
  expect(stage.asked).toEqual([null, 8])
  expect(stage.resets).toBe(1)
  await stage.say('event: scope-destroyed\ndata: {}\n\n')
  await vi.advanceTimersByTimeAsync(60_000)
  expect(stage.lines.at(-1)).toBe('gone')
  expect(stage.asked.length).toBe(2)
})
