// Requests to the service that this page belongs to. Paths are relative to the service's root.
import { ROOT } from './root.ts'

/** The service answered, and said no. */
export class Refused extends Error {
  override name = 'Refused'
  constructor(
    message: string,
    readonly status: number,
    /** Milliseconds the service asks us to wait, if it does. */
    readonly retryAfter: number | null = null,
  ) {
    super(message)
  }
}

/** Nothing answered: the network, the node or the computer is away. */
export class Unreachable extends Error {
  override name = 'Unreachable'
  constructor() {
    super('No answer from this computer.')
  }
}

export function url(path: string): URL {
  return new URL(path, ROOT)
}

/** A reply with a 2xx status, or the reason why there is none. */
export async function call(path: string, init: RequestInit = {}): Promise<Response> {
  let response: Response
  try {
    response = await fetch(url(path), { credentials: 'same-origin', ...init })
  } catch (error) {
    if (init.signal?.aborted) throw error
    throw new Unreachable()
  }
  if (!response.ok) {
    const type = response.headers.get('content-type') ?? ''
    const text = await response.text().catch(() => '')
    throw refusal(response.status, type, text, response.headers.get('retry-after'))
  }
  return response
}

export async function json<T>(path: string, init?: RequestInit): Promise<T> {
  const response = await call(path, init)
  return (await response.json()) as T
}

/** What a refusal says, from whatever body it came with. */
export function refusal(status: number, type: string, body: string, retryAfter: string | null): Refused {
  return new Refused(said(type, body) ?? plain(status), status, wait(retryAfter))
}

function said(type: string, body: string): string | null {
  if (/\bjson\b/.test(type)) {
    try {
      const value = JSON.parse(body) as { message?: unknown; error?: unknown }
      for (const text of [value.message, value.error]) if (typeof text === 'string' && text) return text
    } catch {
      // not JSON after all
    }
    return null
  }
  const text = body.trim()
  return type.startsWith('text/plain') && text ? text.slice(0, 500) : null
}

function plain(status: number): string {
  switch (status) {
    case 401:
      return 'This computer asks for authorization.'
    case 403:
      return 'Permission denied.'
    case 404:
      return 'There is nothing here.'
    case 409:
      return 'Something with that name is already there.'
    case 413:
      return 'That is larger than the service accepts.'
    case 502:
    case 503:
    case 504:
      return 'This computer is not ready yet.'
    case 507:
      return 'The disk is full.'
    default:
      return `The service answered with status ${status}.`
  }
}

function wait(header: string | null): number | null {
  if (!header) return null
  const seconds = Number(header)
  if (Number.isFinite(seconds) && seconds >= 0) return Math.min(seconds, 30) * 1000
  return null
}

/** Whether trying again later, unchanged, may help. */
export function passing(error: unknown): boolean {
  return error instanceof Unreachable || (error instanceof Refused && [408, 425, 429, 502, 503, 504].includes(error.status))
}

/** A sentence for a person. */
export function words(error: unknown): string {
  return sentence(error instanceof Error ? error.message : String(error))
}

/** Begins large and ends with a stop, as services do not. */
export function sentence(text: string): string {
  const begun = text.charAt(0).toUpperCase() + text.slice(1)
  return /[.!?…]$/.test(begun) ? begun : `${begun}.`
}

/** What did not work, and why; a service that already says both is not repeated. */
export function because(act: string, error: unknown): string {
  const why = words(error)
  return /^could not /i.test(why) ? why : `${act}: ${why.charAt(0).toLowerCase()}${why.slice(1)}`
}
