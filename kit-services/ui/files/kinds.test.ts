import { expect, test } from 'vitest'
import { extensionOf, kindOf } from './kinds.ts'

test('a name promises how it is shown', () => {
  const cases: [string, string][] = [
    ['a.PNG', 'image'],
    ['song.mp3', 'audio'],
    ['film.webm', 'video'],
    ['paper.pdf', 'pdf'],
    ['main.rs', 'text'],
    ['Makefile', 'text'],
    ['Dockerfile', 'text'],
    ['README', 'text'],
    ['.bashrc', 'text'],
    ['x.tar.gz', 'bytes'],
    ['notes.sqlite', 'bytes'],
  ]
  for (const [name, show] of cases) expect(kindOf(name, false).show, name).toBe(show)
  expect(kindOf('photos.png', true).tint).toBe('folder')
})

test('extensions', () => {
  expect(extensionOf('A.TXT')).toBe('txt')
  expect(extensionOf('.bashrc')).toBe('.bashrc')
  expect(extensionOf('Makefile')).toBe('makefile')
})
