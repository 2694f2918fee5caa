// The bytes of keys that a phone's keyboard lacks.

export interface Modifiers {
  ctrl: boolean
  alt: boolean
}

export type Key = 'Escape' | 'Tab' | 'Up' | 'Down' | 'Left' | 'Right' | 'Home' | 'End' | 'PageUp' | 'PageDown'

const CURSOR: Partial<Record<Key, string>> = { Up: 'A', Down: 'B', Right: 'C', Left: 'D', Home: 'H', End: 'F' }
const PAGE: Partial<Record<Key, number>> = { PageUp: 5, PageDown: 6 }

/** What a terminal sends for a key; `application` is DECCKM, which programs switch on for their arrows. */
export function sequence(key: Key, { ctrl, alt }: Modifiers, application: boolean): string {
  const modifier = 1 + (alt ? 2 : 0) + (ctrl ? 4 : 0)
  const cursor = CURSOR[key]
  if (cursor) {
    if (modifier > 1) return `\x1b[1;${modifier}${cursor}`
    return application ? `\x1bO${cursor}` : `\x1b[${cursor}`
  }
  const page = PAGE[key]
  if (page) return modifier > 1 ? `\x1b[${page};${modifier}~` : `\x1b[${page}~`
  const plain = key === 'Tab' ? '\t' : '\x1b'
  return alt ? `\x1b${plain}` : plain
}

/** What typed text becomes under the modifiers held on the key bar. */
export function modified(text: string, { ctrl, alt }: Modifiers): string {
  if ([...text].length !== 1) return text
  const typed = ctrl ? control(text) : text
  return alt ? `\x1b${typed}` : typed
}

function control(char: string): string {
  const code = char.toUpperCase().charCodeAt(0)
  if (char === ' ' || char === '@') return '\0'
  if (char === '?') return '\x7f'
  return code >= 0x41 && code <= 0x5f ? String.fromCharCode(code & 0x1f) : char
}
