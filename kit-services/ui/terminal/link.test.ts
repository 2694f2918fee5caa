import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { Link, type State, type Trouble } from './link.ts'

class Fake {
  static all: Fake[] = []
  binaryType = ''
  sent: unknown[] = []
  onopen: (() => void) | null = null
  onmessage: ((event: { data: unknown }) => void) | null = null
  onclose: ((event: { code: number; reason: string; wasClean: boolean }) => void) | null = null
  onerror: null = null
  closed = false
  constructor(readonly url: URL) {
    Fake.all.push(this)
  }
  send(data: unknown) {
    this.sent.push(data)
  }
  close() {
    this.closed = true
  }
  says(text: string) {
    this.onmessage?.({ data: new TextEncoder().encode(text).buffer })
  }
  ends(code: number, reason = '') {
    this.onclose?.({ code, reason, wasClean: code !== 1006 })
  }
}

function rig(trouble: Trouble | null = null) {
  const states: State[] = []
  const output: { text: string; first: boolean; again: boolean }[] = []
  const link = new Link({
    url: (again) => new URL(`ws://x/?again=${again}`),
    size: () => ({ columns: 80, rows: 24 }),
    token: null,
    state: (state) => states.push(state),
    frame: (frame, of) => {
      if (frame.is === 'output') output.push({ text: new TextDecoder().decode(frame.bytes), ...of })
    },
    probe: () => Promise.resolve(trouble),
    random: () => 1,
    socket: (url) => new Fake(url) as unknown as WebSocket,
  })
  link.open()
  const last = () => {
    const fake = Fake.all.at(-1)
    if (!fake) throw new Error('no socket')
    return fake
  }
  return { link, states, output, last, now: () => states.at(-1)?.is }
}

beforeEach(() => {
  Fake.all = []
  vi.useFakeTimers()
})
afterEach(() => vi.useRealTimers())

test('the first frame on the line is the size', () => {
  const { last, now } = rig()
  expect(now()).toBe('connecting')
  last().onopen?.()
  expect(now()).toBe('open')
  expect(JSON.parse(String(last().sent[0]))).toEqual({ command: '{', columns: 80, rows: 24 })
})

test('a lost line comes back, and only then says so', () => {
  const { last, now, output } = rig()
  last().onopen?.()
  last().says('0one')
  last().says('0two')
  last().ends(1006)
  expect(now()).toBe('waiting')
  vi.advanceTimersByTime(400)
  expect(Fake.all.length).toBe(2)
  expect(last().url.search).toBe('?again=true')
  last().onopen?.()
  last().says('1title')
  last().says('0one two')
  expect(output).toEqual([
    { text: 'one', first: true, again: false },
    { text: 'two', first: false, again: false },
    { text: 'one two', first: true, again: true },
  ])
})

test('waits grow until something is heard', () => {
  const { last, states } = rig()
  const waits = []
  for (let n = 0; n < 4; n++) {
    last().ends(1006)
    const state = states.at(-1)
    if (state?.is !== 'waiting') throw new Error('not waiting')
    waits.push(state.until - Date.now())
    vi.advanceTimersByTime(state.until - Date.now())
  }
  expect(waits).toEqual([...waits].sort((a, b) => a - b))
  expect(waits[3]).toBeGreaterThan((waits[0] ?? 0) * 3)
})

test('why it failed is asked for', async () => {
  const { last, states } = rig({ why: 'The computer is stopped.', final: false })
  last().ends(1006)
  await vi.advanceTimersByTimeAsync(0)
  expect(states.at(-1)).toMatchObject({ is: 'waiting', why: 'The computer is stopped.' })
})

test('what the service will never take is not asked for again', async () => {
  const { last, states } = rig({ why: 'There is no user `nobody`.', final: true })
  last().ends(1006)
  await vi.advanceTimersByTimeAsync(60_000)
  expect(states.at(-1)).toEqual({ is: 'refused', why: 'There is no user `nobody`.' })
  expect(Fake.all.length).toBe(1)
})

test('the service tells an end from a failure', () => {
  for (const [code, is] of [[4000, 'ended'], [4001, 'ended'], [1005, 'ended'], [4002, 'refused'], [1013, 'waiting'], [1001, 'waiting'], [1006, 'waiting']] as const) {
    const { last, now } = rig()
    last().onopen?.()
    last().ends(code, 'the shell ended with code 0')
    expect(now(), String(code)).toBe(is)
  }
})

test('an ended session stays ended until it is started again', () => {
  const { link, last, now } = rig()
  last().onopen?.()
  last().ends(1000)
  expect(now()).toBe('ended')
  vi.advanceTimersByTime(60_000)
  expect(Fake.all.length).toBe(1)
  link.retry()
  expect(Fake.all.length).toBe(2)
  expect(last().url.search).toBe('?again=false')
})

test('a refusal is not repeated', () => {
  for (const code of [1002, 1003, 1008, 4002, 4999]) {
    const { last, states } = rig()
    last().onopen?.()
    last().ends(code, 'no')
    expect(states.at(-1)).toEqual({ is: 'refused', why: 'No.' })
  }
  vi.advanceTimersByTime(60_000)
  expect(Fake.all.length).toBe(5)
})

test('input without a line is dropped', () => {
  const { link, last } = rig()
  expect(link.input('rm')).toBe(false)
  last().onopen?.()
  expect(link.input('ls')).toBe(true)
  expect(last().sent.length).toBe(2)
})

test('a line that swallows input is given up when the service is away', async () => {
  const { link, last, now } = rig({ why: 'No answer from this computer.', final: false })
  last().onopen?.()
  link.input('x')
  await vi.advanceTimersByTimeAsync(6_000)
  expect(now()).toBe('waiting')

  const quiet = rig()
  quiet.last().onopen?.()
  quiet.link.input('x')
  await vi.advanceTimersByTimeAsync(60_000)
  expect(quiet.now()).toBe('open')
})

test('a socket that never opens counts as lost', () => {
  const { now, last } = rig()
  vi.advanceTimersByTime(10_000)
  expect(now()).toBe('waiting')
  expect(last().closed).toBe(true)
})

test('after close nothing is reported', () => {
  const { link, states, last } = rig()
  const socket = last()
  link.close()
  const before = states.length
  socket.ends(1006)
  vi.advanceTimersByTime(60_000)
  expect(states.length).toBe(before)
  expect(Fake.all.length).toBe(1)
})
