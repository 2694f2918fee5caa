// The live line: opens it, tells how it is, and brings it back where it was.
//
//   connecting ──open──▶ live ──the container is gone──▶ gone
//       │                  ╲
//       └──lost or refused──┴──▶ waiting ──time, or retry()──▶ connecting
import { delay } from '../shared/backoff.ts'
import { Refused, Unreachable, words } from '../shared/call.ts'
import type { Entry } from './entry.ts'
import { Parser, type Message } from './sse.ts'

export type Line = { is: 'connecting' } | { is: 'live' } | { is: 'paused' } | { is: 'waiting'; until: number; why: string } | { is: 'gone'; why: string }

/** The service says every 15 seconds that it is there. */
const SILENCE_MS = 40_000

export interface Needs {
  /** The stream, from after this entry on. */
  open: (after: number | null, signal: AbortSignal) => Promise<Response>
  line: (line: Line) => void
  entry: (entry: Entry) => void
  /** What was seen is no longer what there is: look again. */
  reset: () => void
  random?: () => number
  now?: () => number
}

export class Tail {
  #needs: Required<Needs>
  #stop: AbortController | null = null
  #timer: ReturnType<typeof setTimeout> | undefined
  #attempt = 0
  /** The last entry that was seen. */
  #at: number | null = null

  constructor(needs: Needs) {
    this.#needs = { random: Math.random, now: Date.now, ...needs }
  }

  /** Follow from after this entry on; from now on where there is none. */
  start(after: number | null): void {
    this.#at = after
    this.#attempt = 0
    this.#connect()
  }

  /** Let go of the line, and remember where. */
  pause(): void {
    this.#drop()
    this.#needs.line({ is: 'paused' })
  }

  /** Take it up again, without waiting. */
  retry(): void {
    this.#attempt = 0
    this.#connect()
  }

  /** Leave for good; nothing is reported afterwards. */
  close(): void {
    this.#drop()
  }

  #drop(): void {
    clearTimeout(this.#timer)
    this.#stop?.abort()
    this.#stop = null
  }

  #connect(): void {
    this.#drop()
    const stop = new AbortController()
    this.#stop = stop
    this.#needs.line({ is: 'connecting' })
    this.#follow(stop).then(
      () => this.#lost(stop, new Unreachable()),
      (error: unknown) => this.#lost(stop, error),
    )
  }

  async #follow(stop: AbortController): Promise<void> {
    const response = await this.#needs.open(this.#at, stop.signal)
    if (this.#stop !== stop || !response.body) return
    this.#needs.line({ is: 'live' })
    const reader = response.body.getReader()
    const decoder = new TextDecoder()
    const parser = new Parser()
    for (;;) {
      let silence: ReturnType<typeof setTimeout> | undefined
      const part = await Promise.race([
        reader.read(),
        new Promise<never>((_, fail) => {
          silence = setTimeout(() => fail(new Unreachable()), SILENCE_MS)
        }),
      ]).finally(() => clearTimeout(silence))
      if (this.#stop !== stop || part.done) return
      this.#attempt = 0
      for (const message of parser.take(decoder.decode(part.value, { stream: true }))) {
        this.#hear(message)
        if (this.#stop !== stop) return
      }
    }
  }

  #hear(message: Message): void {
    switch (message.event) {
      case 'message': {
        let entry: Entry
        try {
          entry = JSON.parse(message.data) as Entry
        } catch {
          return
        }
        this.#at = entry.id
        this.#needs.entry(entry)
        return
      }
      case 'reset':
      case 'epoch_mismatch':
        this.#needs.reset()
        return
      case 'scope_changed':
      case 'scope-destroyed':
        this.#drop()
        this.#needs.line({ is: 'gone', why: message.event === 'scope_changed' ? 'This computer went to another project.' : 'This computer is gone, and its log with it.' })
    }
  }

  #lost(stop: AbortController, error: unknown): void {
    if (this.#stop !== stop) return
    stop.abort()
    const asked = error instanceof Refused ? error.retryAfter : null
    const wait = Math.max(asked ?? 0, delay(this.#attempt++, this.#needs.random()))
    this.#needs.line({ is: 'waiting', until: this.#needs.now() + wait, why: words(error) })
    this.#timer = setTimeout(() => this.#connect(), wait)
  }
}
