// The `tty` subprotocol: the first byte of a frame is its command.

const INPUT = 0x30 // 0
const PAUSE = '2'
const RESUME = '3'

/** Bytes in one input frame; a long paste travels as several. */
export const INPUT_FRAME = 16 << 10

export interface Size {
  columns: number
  rows: number
}

/** What the server sends. */
export type Frame =
  | { is: 'output'; bytes: Uint8Array }
  | { is: 'title'; text: string }
  | { is: 'preferences'; values: Record<string, unknown> }
  | { is: 'terminal'; id: string }
  | { is: 'shell'; name: string }

const encoder = new TextEncoder()
const decoder = new TextDecoder()

/** The first frame of a connection, as text. */
export function hello({ columns, rows }: Size, token?: string): string {
  return JSON.stringify({ command: '{', columns, rows, ...(token ? { token } : {}) })
}

/** As text. */
export function resize({ columns, rows }: Size): string {
  return `1${JSON.stringify({ command: '1', columns, rows })}`
}

/** Typed or pasted text. */
export function input(text: string): Uint8Array<ArrayBuffer>[] {
  return cut(encoder.encode(text))
}

/** Bytes that are no text, as a mouse report: one byte per character. */
export function binaryInput(text: string): Uint8Array<ArrayBuffer>[] {
  return cut(Uint8Array.from(text, (char) => char.charCodeAt(0) & 0xff))
}

function cut(bytes: Uint8Array): Uint8Array<ArrayBuffer>[] {
  const frames: Uint8Array<ArrayBuffer>[] = []
  for (let at = 0; at < bytes.length; at += INPUT_FRAME) {
    const part = bytes.subarray(at, at + INPUT_FRAME)
    const frame = new Uint8Array(part.length + 1)
    frame[0] = INPUT
    frame.set(part, 1)
    frames.push(frame)
  }
  return frames
}

export function pause(): Uint8Array<ArrayBuffer> {
  return Uint8Array.of(PAUSE.charCodeAt(0))
}

export function resume(): Uint8Array<ArrayBuffer> {
  return Uint8Array.of(RESUME.charCodeAt(0))
}

/** What a frame of the server says; an unknown command is output, the byte included. */
export function decode(buffer: ArrayBuffer): Frame | null {
  const bytes = new Uint8Array(buffer)
  if (bytes.length === 0) return null
  const rest = bytes.subarray(1)
  switch (String.fromCharCode(bytes[0] ?? 0)) {
    case '0':
      return { is: 'output', bytes: rest }
    case '1':
      return { is: 'title', text: decoder.decode(rest) }
    case '2':
      return { is: 'preferences', values: preferences(decoder.decode(rest)) }
    case '3':
      return { is: 'terminal', id: decoder.decode(rest).trim() }
    case '4':
      return { is: 'shell', name: decoder.decode(rest).trim() }
    default:
      return { is: 'output', bytes }
  }
}

/** Preferences come bare or as `{preferences}`; what is not an object holds none. */
function preferences(text: string): Record<string, unknown> {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return {}
  }
  if (!plain(value)) return {}
  return plain(value['preferences']) ? value['preferences'] : value
}

function plain(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
