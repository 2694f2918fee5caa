// Bytes that may be text.

export interface Text {
  text: string
  /** How its lines end; mixed endings cannot be kept by an editor of lines. */
  ends: '\n' | '\r\n' | 'mixed'
}

/** The text that the bytes are, or null when they are something else. */
export function textOf(bytes: Uint8Array, cut: boolean): Text | null {
  if (bytes.includes(0)) return null
  let whole = bytes
  if (cut) {
    // the last character may have been cut in two
    let end = bytes.length
    for (let n = 0; n < 4 && end > 0 && ((bytes[end - 1] ?? 0) & 0xc0) === 0x80; n++) end--
    if (end > 0 && (bytes[end - 1] ?? 0) >= 0xc0) whole = bytes.subarray(0, end - 1)
  }
  let text: string
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(whole)
  } catch {
    return null
  }
  return { text, ends: endsOf(text) }
}

function endsOf(text: string): Text['ends'] {
  const crlf = text.match(/\r\n/g)?.length ?? 0
  const all = text.match(/\r\n?|\n/g)?.length ?? 0
  if (crlf === 0) return text.includes('\r') ? 'mixed' : '\n'
  return crlf === all ? '\r\n' : 'mixed'
}
