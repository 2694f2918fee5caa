// The line to a session: opens it, tells how it is, and brings it back.
//
//   connecting ──open──▶ open ──closed by the session──▶ ended
//       │                 │ ╲──refused by the service──▶ refused
//       └──────lost───────┴──▶ waiting ──time, or retry()──▶ connecting
import { delay } from '../shared/backoff.ts'
import { sentence } from '../shared/call.ts'
import { binaryInput, decode, hello, input, pause, resize, resume, type Frame, type Size } from './frames.ts'

export type State =
  | { is: 'connecting'; attempt: number }
  | { is: 'open' }
  | { is: 'waiting'; until: number; why: string }
  | { is: 'ended'; why: string }
  | { is: 'refused'; why: string }

/** How long to wait for a socket to open before it counts as lost. */
const OPEN_MS = 10_000
/** Input that nothing answers for this long makes us ask whether the line is still there. */
const SILENCE_MS = 6_000

/** Why there is no line. */
export interface Trouble {
  why: string
  /** Asking again would be answered the same. */
  final: boolean
}

/** Close codes of the service, where the standard has none. */
const EXITED = 4000
const CLOSED = 4001

export interface Needs {
  /** `again` is true for every connection after the first that opened. */
  url: (again: boolean) => URL
  size: () => Size
  token: string | null
  state: (state: State) => void
  /** `first` marks the first output of a connection: on a line that came back it repeats the screen. */
  frame: (frame: Frame, of: { first: boolean; again: boolean }) => void
  /** What is wrong with the service; null when it answers. `closed` asks about a line that never opened. */
  probe: (closed: boolean) => Promise<Trouble | null>
  random?: () => number
  now?: () => number
  socket?: (url: URL) => WebSocket
}

export class Link {
  #needs: Required<Needs>
  #socket: WebSocket | null = null
  #timer: ReturnType<typeof setTimeout> | undefined
  #silence: ReturnType<typeof setTimeout> | undefined
  #attempt = 0
  #opened = false
  #heard = 0
  #state: State = { is: 'connecting', attempt: 0 }
  #over = false

  constructor(needs: Needs) {
    this.#needs = {
      random: Math.random,
      now: Date.now,
      socket: (url) => new WebSocket(url, 'tty'),
      ...needs,
    }
  }

  open(): void {
    this.#connect()
  }

  /** Leave for good; nothing is reported afterwards. */
  close(): void {
    this.#over = true
    this.#drop()
  }

  /** Do not wait any longer. */
  retry(): void {
    if (this.#over || this.#state.is === 'open' || this.#state.is === 'connecting') return
    // a session that ended is started anew, and that is no return to it
    if (this.#state.is === 'ended') this.#opened = false
    this.#attempt = 0
    this.#connect()
  }

  /** Whether it was taken: input without a line is dropped, not kept for a shell that may have changed. */
  input(text: string): boolean {
    return this.#type(input(text))
  }

  binary(text: string): boolean {
    return this.#type(binaryInput(text))
  }

  resize(size: Size): void {
    if (this.#state.is === 'open') this.#socket?.send(resize(size))
  }

  pause(): void {
    if (this.#state.is === 'open') this.#socket?.send(pause())
  }

  resume(): void {
    if (this.#state.is === 'open') this.#socket?.send(resume())
  }

  /** Something hints that the line may be dead: find out. */
  doubt(): void {
    const socket = this.#socket
    const asked = this.#needs.now()
    if (this.#state.is !== 'open' || !socket) return
    void this.#needs.probe(false).then((trouble) => {
      if (trouble && this.#socket === socket && this.#heard < asked) this.#lost(trouble.why)
    })
  }

  #type(frames: Uint8Array<ArrayBuffer>[]): boolean {
    const socket = this.#socket
    if (this.#state.is !== 'open' || !socket) return false
    for (const frame of frames) socket.send(frame)
    if (this.#silence === undefined) {
      const sent = this.#needs.now()
      this.#silence = setTimeout(() => {
        this.#silence = undefined
        if (this.#heard < sent) this.doubt()
      }, SILENCE_MS)
    }
    return true
  }

  #connect(): void {
    this.#drop()
    this.#become({ is: 'connecting', attempt: this.#attempt })
    const again = this.#opened
    let socket: WebSocket
    try {
      socket = this.#needs.socket(this.#needs.url(again))
    } catch (error) {
      this.#become({ is: 'refused', why: error instanceof Error ? error.message : String(error) })
      return
    }
    this.#socket = socket
    socket.binaryType = 'arraybuffer'
    let first = true
    this.#timer = setTimeout(() => this.#lost('No answer from this computer.'), OPEN_MS)

    socket.onopen = () => {
      clearTimeout(this.#timer)
      this.#opened = true
      socket.send(hello(this.#needs.size(), this.#needs.token ?? undefined))
      this.#become({ is: 'open' })
    }
    socket.onmessage = ({ data }: MessageEvent<unknown>) => {
      this.#heard = this.#needs.now()
      this.#attempt = 0
      if (!(data instanceof ArrayBuffer)) return
      const frame = decode(data)
      if (!frame) return
      this.#needs.frame(frame, { first: first && frame.is === 'output', again })
      if (frame.is === 'output') first = false
    }
    socket.onclose = (event) => {
      const opened = this.#state.is === 'open'
      const why = event.reason ? sentence(event.reason) : ''
      if (over(event)) {
        this.#drop()
        this.#become({ is: 'ended', why: why || 'The session ended.' })
      } else if (final(event.code)) {
        this.#drop()
        this.#become({ is: 'refused', why: why || `The service closed the line (code ${event.code}).` })
      } else {
        this.#lost(why || (opened ? 'Connection lost.' : ''))
      }
    }
  }

  #lost(why: string): void {
    const { now, random, probe } = this.#needs
    this.#drop()
    const wait = delay(this.#attempt++, random())
    const until = now() + wait
    this.#become({ is: 'waiting', until, why: why || 'No answer from this computer.' })
    this.#timer = setTimeout(() => this.#connect(), wait)
    // the browser hides why a WebSocket failed; a plain request tells
    if (!why) {
      void probe(true).then((trouble) => {
        if (!trouble || this.#state.is !== 'waiting') return
        if (trouble.final) {
          this.#drop()
          this.#become({ is: 'refused', why: trouble.why })
        } else this.#become({ ...this.#state, why: trouble.why })
      })
    }
  }

  #drop(): void {
    clearTimeout(this.#timer)
    clearTimeout(this.#silence)
    this.#silence = undefined
    const socket = this.#socket
    this.#socket = null
    if (!socket) return
    socket.onopen = socket.onmessage = socket.onclose = socket.onerror = null
    try {
      socket.close()
    } catch {
      // it never opened
    }
  }

  #become(state: State): void {
    this.#state = state
    if (!this.#over) this.#needs.state(state)
  }
}

/** Whether the session itself is over, rather than the line to it. */
function over({ code, wasClean }: CloseEvent): boolean {
  return code === EXITED || code === CLOSED || code === 1000 || (code === 1005 && wasClean)
}

/** Close codes after which trying again is pointless: broken protocol, policy, the service's own. */
function final(code: number): boolean {
  return code === 1002 || code === 1003 || code === 1008 || (code >= 4000 && code <= 4999)
}
