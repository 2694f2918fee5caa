import { expect, test } from 'vitest'
import { below, rootOf } from './root.ts'

test('the root is where the scripts come from', () => {
  expect(rootOf('https://h/_hoody/ui/files/assets/index-x.js', 'https://h/home/user/').href).toBe('https://h/')
  expect(rootOf('https://h/files-1/_hoody/ui/files/assets/index-x.js', 'https://h/files-1/').href).toBe('https://h/files-1/')
  expect(rootOf('file:///src/root.ts', 'https://h/a/b').href).toBe('https://h/a/')
})

test('a page below the root tells the folder it was opened for', () => {
  const root = new URL('https://h/files-1/')
  expect(below(root, new URL('https://h/files-1/'))).toBe('')
  expect(below(root, new URL('https://h/files-1/home/a%20b/'))).toBe('home/a b/')
  expect(below(root, new URL('https://h/files-1/%zz'))).toBe('')
  expect(below(root, new URL('https://h/other'))).toBe('')
})
