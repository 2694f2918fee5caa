// Server-sent events (HTML Living Standard, section 9.2.6), read from a stream of text.

export interface Message {
  event: string
  data: string
  /** Set where the message names an id, possibly an empty one. */
  id: string | null
}

/** More than this without an end is no message of this service. */
const MOST = 1 << 20

/** Takes text as it comes, gives the messages that are whole. */
export class Parser {
  #rest = ''
  #event = ''
  #data: string[] = []
  #id: string | null = null

  take(text: string): Message[] {
    const found: Message[] = []
    const lines = (this.#rest + text).split(/\r\n|\n/)
    this.#rest = lines.pop() ?? ''
    if (this.#rest.length > MOST) throw new Error('a line of the stream has no end')
    for (const line of lines) {
      if (line === '') {
        if (this.#data.length > 0) found.push({ event: this.#event || 'message', data: this.#data.join('\n'), id: this.#id })
        this.#event = ''
        this.#data = []
        this.#id = null
        continue
      }
      if (line.startsWith(':')) continue
      const colon = line.indexOf(':')
      const field = colon < 0 ? line : line.slice(0, colon)
      const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '')
      if (field === 'data') this.#data.push(value)
      else if (field === 'event') this.#event = value
      else if (field === 'id') this.#id = value
    }
    return found
  }
}
