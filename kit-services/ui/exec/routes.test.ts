import { expect, test } from 'vitest'
import { below, routeOf } from './routes.ts'

test('scripts have addresses, helpers have none', () => {
  const cases: [string, string | null][] = [
    ['hello.ts', '/hello'],
    ['index.js', '/'],
    ['users/[id].ts', '/users/[id]'],
    ['a/index.ts', '/a'],
    ['pre.ts', null],
    ['_lib.ts', null],
    ['x.json', null],
    ['types.d.ts', null],
  ]
  for (const [path, route] of cases) expect(routeOf(path), path).toBe(route)
  expect(below('default/1/a.ts', 'default/1')).toBe('a.ts')
  expect(below('default/10/a.ts', 'default/1')).toBeNull()
})
