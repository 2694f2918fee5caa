import { expect, test } from 'vitest'
import { hexColour, luminance, palette } from './palette.ts'

test('a ground that somebody chose decides what is written on it', () => {
  expect(palette(true, null).background).toBe('#0f1215')
  expect(palette(false, null).background).toBe('#ffffff')
  expect(palette(false, '#2b2b2b')).toMatchObject({ background: '#2b2b2b', foreground: palette(true, null).foreground })
  expect(palette(true, '#fafafa').foreground).toBe(palette(false, null).foreground)
})

test('luminance', () => {
  expect(luminance('#ffffff')).toBeCloseTo(1)
  expect(luminance('#fff')).toBeCloseTo(1)
  expect(luminance('#000')).toBe(0)
})

test('colours are hexadecimal or nothing', () => {
  expect(hexColour('#2B2B2B')).toBe('#2b2b2b')
  expect(hexColour('fff')).toBe('#fff')
  for (const bad of ['red', '#12', 'url(x)', '', null, 5, '#12345g']) expect(hexColour(bad)).toBeNull()
})

test('everything written in either palette can be read', () => {
  const contrast = (a: string, b: string) => {
    const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y) as [number, number]
    return (high + 0.05) / (low + 0.05)
  }
  for (const dark of [true, false]) {
    const colours = palette(dark, null)
    for (const [name, value] of Object.entries(colours)) {
      if (!/^(foreground|red|green|yellow|blue|magenta|cyan|white|bright)/.test(name)) continue
      expect(contrast(String(value), String(colours.background)), `${dark ? 'dark' : 'light'} ${name}`).toBeGreaterThan(3.6)
    }
  }
})
