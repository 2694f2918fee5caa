// The colours of the terminal. The grounds match the page's, so that no frame shows around it.
import type { ITheme } from '@xterm/xterm'

const DARK: ITheme = {
  background: '#0f1215',
  foreground: '#dfe3e7',
  cursor: '#4fd1b0',
  cursorAccent: '#0f1215',
  selectionBackground: '#2b4a5c',
  selectionInactiveBackground: '#2a3238',
  black: '#22282e',
  red: '#f2777a',
  green: '#7fcf8f',
  yellow: '#e6c06a',
  blue: '#6cb0f0',
  magenta: '#c792ea',
  cyan: '#5fd0cf',
  white: '#c6ccd2',
  brightBlack: '#7d8791',
  brightRed: '#ff9a9c',
  brightGreen: '#a3e2ae',
  brightYellow: '#f5d88e',
  brightBlue: '#96c8f8',
  brightMagenta: '#dcb3f5',
  brightCyan: '#8fe3e1',
  brightWhite: '#ffffff',
}

const LIGHT: ITheme = {
  background: '#ffffff',
  foreground: '#1d2329',
  cursor: '#0b7663',
  cursorAccent: '#ffffff',
  selectionBackground: '#bfdcec',
  selectionInactiveBackground: '#dde3e8',
  black: '#1d2329',
  red: '#b3202d',
  green: '#17713a',
  yellow: '#855600',
  blue: '#0f5fb0',
  magenta: '#8334a5',
  cyan: '#0b6f78',
  white: '#5c6670',
  brightBlack: '#727c86',
  brightRed: '#d0303e',
  brightGreen: '#1f8a49',
  brightYellow: '#a06a00',
  brightBlue: '#1c74d0',
  brightMagenta: '#9b48c0',
  brightCyan: '#11848f',
  brightWhite: '#3a424a',
}

/** The palette for a page that is dark or not, or for a ground somebody chose. */
export function palette(dark: boolean, ground: string | null): ITheme {
  if (!ground) return dark ? DARK : LIGHT
  const base = luminance(ground) > 0.4 ? LIGHT : DARK
  return { ...base, background: ground, cursorAccent: ground }
}

/** Relative luminance of `#rgb` or `#rrggbb`, 0 to 1. */
export function luminance(hex: string): number {
  const [r = 0, g = 0, b = 0] = (hex.slice(1).match(hex.length === 4 ? /./g : /../g) ?? []).map((part) => {
    const value = parseInt(part.length === 1 ? part + part : part, 16) / 255
    return value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4
  })
  return 0.2126 * r + 0.7152 * g + 0.0722 * b
}

/** A colour as `#rrggbb` if that is what it is; `#` may be left out, as it must be escaped in an address. */
export function hexColour(text: unknown): string | null {
  if (typeof text !== 'string') return null
  const found = /^#?([0-9a-f]{3}|[0-9a-f]{6})$/i.exec(text.trim())
  return found ? `#${found[1]?.toLowerCase()}` : null
}
