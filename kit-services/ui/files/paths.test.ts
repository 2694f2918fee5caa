import { expect, test } from 'vitest'
import { base, clean, contentsUrl, freeName, fromHash, hashOf, join, operationUrl, parent, split, trail, within, wrongName } from './paths.ts'

test('paths are made plain', () => {
  const cases: [string, string][] = [
    ['', '/'],
    ['/', '/'],
    ['//a///b/', '/a/b'],
    ['/a/./b/../c', '/a/c'],
    ['/../../etc', '/etc'],
    ['a', '/a'],
  ]
  for (const [from, to] of cases) expect(clean(from)).toBe(to)
})

test('parts of a path', () => {
  expect(join('/', 'a')).toBe('/a')
  expect(join('/a', 'b')).toBe('/a/b')
  expect(parent('/a/b')).toBe('/a')
  expect(parent('/a')).toBe('/')
  expect(parent('/')).toBe('/')
  expect(base('/a/b.txt')).toBe('b.txt')
  expect(within('/a/b', '/a')).toBe(true)
  expect(within('/ab', '/a')).toBe(false)
  expect(within('/x', '/')).toBe(true)
  expect(trail('/a/b').map((step) => step.path)).toEqual(['/', '/a', '/a/b'])
})

test('every name survives the way to the service', () => {
  expect(contentsUrl('/')).toBe('api/v1/files/')
  expect(contentsUrl('/a b/c#d?e%f')).toBe('api/v1/files/a%20b/c%23d%3Fe%25f')
  expect(contentsUrl('/stat/x')).toBe('api/v1/files/%2Fstat/x')
  expect(contentsUrl('/statistics')).toBe('api/v1/files/statistics')
  expect(operationUrl('stat', '/stat/x')).toBe('api/v1/files/stat/stat/x')
})

test('every path survives the address', () => {
  for (const path of ['/', '/a', '/a b/ü', '/50% off/#1?', '/a&b=c+d,e:f@g$', "/it's (1)!", '/名前']) {
    expect(fromHash(hashOf(path, true)), path).toEqual({ path, folder: true })
    if (path !== '/') expect(fromHash(hashOf(path, false)), path).toEqual({ path, folder: false })
  }
  expect(fromHash('')).toBeNull()
  expect(fromHash('#x')).toBeNull()
  expect(fromHash('#/100%')).toEqual({ path: '/100%', folder: false })
  expect(fromHash('#/a/../../b')).toEqual({ path: '/b', folder: false })
})

test('names that Linux cannot have are refused', () => {
  for (const bad of ['', '.', '..', 'a/b', 'a\0b', 'é'.repeat(128)]) expect(wrongName(bad), bad).not.toBeNull()
  for (const good of ['a', '.a', '...', 'é'.repeat(127), ' ', 'a\\b', 'con']) expect(wrongName(good), good).toBeNull()
})

test('a taken name gets a number before its extension', () => {
  const taken = new Set(['a.txt', 'a (2).txt', 'b.tar.gz', '.profile', 'x (2)'])
  expect(freeName('new', taken)).toBe('new')
  expect(freeName('a.txt', taken)).toBe('a (3).txt')
  expect(freeName('b.tar.gz', taken)).toBe('b (2).tar.gz')
  expect(freeName('.profile', taken)).toBe('.profile (2)')
  expect(freeName('x (2)', taken)).toBe('x (3)')
  expect(split('archive.tar.gz')).toEqual({ stem: 'archive', extension: '.tar.gz' })
})
