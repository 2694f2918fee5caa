// Numbers and times as people read them.

const UNITS = ['B', 'KB', 'MB', 'GB', 'TB', 'PB'] as const

/** `1.4 MB`: powers of 1000, three digits at most. */
export function size(bytes: number): string {
  if (!Number.isFinite(bytes) || bytes < 0) return '—'
  let value = bytes
  let unit = 0
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000
    unit++
  }
  const digits = unit === 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2
  return `${value.toFixed(digits).replace(/(\.\d*?)0+$/, '$1').replace(/\.$/, '')} ${UNITS[unit]}`
}

/** Milliseconds since 1970 from a field that some services fill with seconds. */
export function instant(value: number | null | undefined): number | null {
  if (value === null || value === undefined || !Number.isFinite(value) || value <= 0) return null
  return value < 100_000_000_000 ? value * 1000 : value
}

const time = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit' })
const day = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'short' })
const year = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'short', year: 'numeric' })
const full = new Intl.DateTimeFormat(undefined, { dateStyle: 'full', timeStyle: 'medium' })

/** `Today, 14:05`, `3 Nov, 14:05` this year, else the date. */
export function when(at: number | null, now: number): string {
  if (at === null) return '—'
  const then = new Date(at)
  const today = new Date(now)
  if (then.toDateString() === today.toDateString()) return `Today, ${time.format(then)}`
  if (then.getFullYear() === today.getFullYear()) return `${day.format(then)}, ${time.format(then)}`
  return year.format(then)
}

export function whenInFull(at: number | null): string {
  return at === null ? '' : full.format(at)
}

/** `3 min ago`. */
export function ago(at: number | null, now: number): string {
  if (at === null) return ''
  const seconds = Math.max(0, Math.round((now - at) / 1000))
  if (seconds < 45) return 'just now'
  if (seconds < 90 * 60) return `${Math.max(1, Math.round(seconds / 60))} min ago`
  if (seconds < 36 * 3600) return `${Math.round(seconds / 3600)} h ago`
  return `${Math.round(seconds / 86400)} d ago`
}

export function count(n: number, one: string, many = `${one}s`): string {
  return `${n.toLocaleString()} ${n === 1 ? one : many}`
}
