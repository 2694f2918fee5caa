// What a value looks like, and SQL for what is clicked. Nothing here asks anybody.

/** A value as the service sends it, with its type: no digit is lost on the way. */
export type Value =
  | { type: 'null' }
  | { type: 'integer'; value: string }
  | { type: 'float'; value: number | string }
  | { type: 'text'; value: string }
  | { type: 'blob'; base64: string }

/** Longer text is cut in a cell; all of it is in the title, up to a point. */
const CUT = 300
const TITLE = 4000

export interface Cell {
  kind: Value['type']
  text: string
  title: string
}

export function cell(value: Value): Cell {
  switch (value.type) {
    case 'null':
      return { kind: 'null', text: 'NULL', title: '' }
    case 'integer':
      return { kind: 'integer', text: value.value, title: '' }
    case 'float':
      return { kind: 'float', text: float(value.value), title: '' }
    case 'blob': {
      const bytes = blobBytes(value.base64)
      return { kind: 'blob', text: `blob, ${bytes} ${bytes === 1 ? 'byte' : 'bytes'}`, title: value.base64.slice(0, TITLE) }
    }
    case 'text': {
      const long = value.value.length > CUT
      return { kind: 'text', text: long ? `${value.value.slice(0, CUT)}…` : value.value, title: long || value.value.includes('\n') ? value.value.slice(0, TITLE) : '' }
    }
  }
}

/** A real number reads as one: 1.0 is not 1. */
function float(value: number | string): string {
  if (typeof value === 'string') return value
  const text = String(value)
  return /^-?\d+$/.test(text) ? `${text}.0` : text
}

export function blobBytes(base64: string): number {
  const digits = base64.replace(/=+$/, '').length
  return Math.floor((digits * 3) / 4)
}

/** A name as SQL has it. */
export function quoted(name: string): string {
  return `"${name.replaceAll('"', '""')}"`
}

/** What a click on a table asks. */
export function look(table: string): string {
  return `SELECT * FROM ${quoted(table)} LIMIT 100`
}

/** Whether a statement gives rows: those that do not are told by how many rows they changed. */
export function asks(sql: string): boolean {
  const plain = sql.replace(/^(\s|;|--[^\n]*(\n|$)|\/\*[\s\S]*?\*\/)+/, '')
  return /^(select|with|values|explain|pragma)\b/i.test(plain) || /\breturning\b/i.test(plain)
}

/** Statements of a text, parted at semicolons that stand in no quotes and no trigger. */
export function statements(text: string): string[] {
  const found: string[] = []
  let begin = 0
  let words: string[] = []
  const pieces = /'(?:[^']|'')*'?|"(?:[^"]|"")*"?|`[^`]*`?|\[[^\]]*\]?|--[^\n]*|\/\*[\s\S]*?(?:\*\/|$)|[A-Za-z_]\w*|;/g
  for (const { 0: piece, index } of text.matchAll(pieces)) {
    if (piece === ';') {
      const trigger = /^CREATE( TEMP| TEMPORARY)? TRIGGER/.test(words.slice(0, 3).join(' '))
      if (trigger && words.at(-1) !== 'END') continue
      found.push(text.slice(begin, index))
      begin = index + 1
      words = []
    } else if (/^[A-Za-z_]/.test(piece)) words.push(piece.toUpperCase())
  }
  found.push(text.slice(begin))
  return found.map((sql) => sql.trim()).filter((sql) => sql.replace(/--[^\n]*|\/\*[\s\S]*?(\*\/|$)/g, '').trim())
}

/** A table for a program that reads tabs. */
export function tabs(columns: string[], rows: Value[][]): string {
  const plain = (text: string) => text.replace(/[\t\r\n]+/g, ' ')
  const line = (row: Value[]) => row.map((value) => plain(value.type === 'null' ? '' : value.type === 'blob' ? value.base64 : String(value.value))).join('\t')
  return [columns.map(plain).join('\t'), ...rows.map(line)].join('\n')
}

/** How long something took. */
export function took(ms: number): string {
  if (ms < 1000) return `${Math.max(1, Math.round(ms))} ms`
  return `${(ms / 1000).toFixed(1)} s`
}
