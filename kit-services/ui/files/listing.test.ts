import { expect, test } from 'vitest'
import { filtered, hidden, itemsOf, ordered, type Order } from './listing.ts'

const listing = {
  paths: [
    { name: 'file10', path_type: 'File', size: 5, mtime: 1_760_000_000_000 },
    { name: 'file2', path_type: 'File', size: 50, mtime: 1_750_000_000_000 },
    { name: 'Zoo', path_type: 'Dir', size: 4096, mtime: 1_740_000_000_000 },
    { name: 'alias', path_type: 'SymlinkDir', size: 0, mtime: 0 },
    { name: '.rc', path_type: 'SymlinkFile', size: 5, mtime: 1_760_000_000 },
  ],
}
const items = itemsOf(listing, '/home')
const names = (order: Order) => ordered(items, order).map((item) => item.name)

test('entries are read, seconds too', () => {
  expect(items.find((item) => item.name === '.rc')).toEqual({ name: '.rc', path: '/home/.rc', folder: false, link: true, size: 5, at: 1_760_000_000_000 })
  expect(items.find((item) => item.name === 'Zoo')?.size).toBeNull()
  expect(items.find((item) => item.name === 'alias')).toMatchObject({ folder: true, link: true, at: null })
})

test('a listing that makes no sense is empty', () => {
  for (const bad of [{}, { paths: null }, { paths: [null, {}, { name: '..' }, { name: 'a/b' }, { name: 5 }] }]) expect(itemsOf(bad, '/')).toEqual([])
})

test('folders first, numbers by value, the same order each time', () => {
  expect(names({ by: 'name', down: false })).toEqual(['alias', 'Zoo', '.rc', 'file2', 'file10'])
  expect(names({ by: 'name', down: true })).toEqual(['Zoo', 'alias', 'file10', 'file2', '.rc'])
  expect(names({ by: 'size', down: true })).toEqual(['alias', 'Zoo', 'file2', '.rc', 'file10'])
  expect(names({ by: 'at', down: true })).toEqual(['Zoo', 'alias', '.rc', 'file10', 'file2'])
})

test('the filter wants every word', () => {
  expect(filtered(items, ' FILE 1 ').map((item) => item.name)).toEqual(['file10'])
  expect(filtered(items, '').length).toBe(5)
  expect(hidden('.rc')).toBe(true)
})
