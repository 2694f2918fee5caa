import { expect, test } from 'vitest'
import { placeOf, sibling } from './place.ts'

const P = '0123456789abcdef01234567'
const C = '89abcdef0123456789abcdef'
const HOST = `${P}-${C}-terminal-3.node1.containers.hoody.localhost`

test('a kit host names its service and index', () => {
  expect(placeOf(HOST)).toEqual({ slug: 'terminal', index: 3 })
  expect(placeOf(`${P}-${C}-n-1.x`)).toEqual({ slug: 'n', index: 1 })
})

test('other hosts name nothing', () => {
  for (const host of ['localhost', 'dev.node1.containers.example', '', `${P}-terminal-1.x`, `${P}-${C}-terminal-x.y`])
    expect(placeOf(host), host).toBeNull()
})

test('a sibling keeps the computer, the node and the port', () => {
  const url = new URL(`https://${HOST}:8443/?terminal_id=9#x`)
  expect(sibling(url, 'files')?.href).toBe(`https://${P}-${C}-files-1.node1.containers.hoody.localhost:8443/`)
  expect(sibling(new URL('http://localhost:1/'), 'files')).toBeNull()
})
