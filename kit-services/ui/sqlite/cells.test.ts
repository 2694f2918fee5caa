import { expect, test } from 'vitest'
import { asks, blobBytes, cell, look, statements, tabs } from './cells.ts'

test('values show what they are', () => {
  expect(cell({ type: 'integer', value: '9007199254740993' }).text).toBe('9007199254740993')
  expect(cell({ type: 'float', value: 1 }).text).toBe('1.0')
  expect(cell({ type: 'float', value: 1e300 }).text).toBe('1e+300')
  expect(cell({ type: 'float', value: '-Infinity' }).text).toBe('-Infinity')
  expect(cell({ type: 'null' })).toEqual({ kind: 'null', text: 'NULL', title: '' })
  expect(cell({ type: 'blob', base64: 'AP8=' }).text).toBe('blob, 2 bytes')
  expect(cell({ type: 'text', value: 'x'.repeat(999) }).text.length).toBe(301)
  for (const [text, bytes] of [['', 0], ['AA==', 1], ['AAA=', 2], ['AAAA', 3]] as const) expect(blobBytes(text)).toBe(bytes)
})

test('names are quoted', () => {
  expect(look('a"b')).toBe('SELECT * FROM "a""b" LIMIT 100')
})

test('statements that give rows are told apart', () => {
  for (const sql of ['select 1', ' -- x\n/* y */ WITH a AS (SELECT 1) SELECT 1', 'pragma table_info(t)', 'INSERT INTO t VALUES (1) RETURNING id', 'EXPLAIN SELECT 1']) expect(asks(sql), sql).toBe(true)
  for (const sql of ['INSERT INTO t SELECT 1', 'selection', 'CREATE TABLE t (x)', '']) expect(asks(sql), sql).toBe(false)
})

test('statements end where they do', () => {
  expect(statements("SELECT ';'; SELECT \";\" -- ; no\n; /* ; */ ;; ")).toEqual(["SELECT ';'", 'SELECT ";" -- ; no'])
  const trigger = 'CREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT 1; SELECT 2; END'
  expect(statements(`${trigger}; SELECT 3`)).toEqual([trigger, 'SELECT 3'])
  expect(statements("SELECT 'open")).toEqual(["SELECT 'open"])
  expect(statements('')).toEqual([])
})

test('tables are copied as tabs', () => {
  expect(tabs(['a', 'b'], [[{ type: 'text', value: 'x\ty' }, { type: 'null' }]])).toBe('a\tb\nx y\t')
})
