// What programs do with the client of libsql, over both of its transports.
import assert from 'node:assert/strict'
import { createClient } from '@libsql/client'

const base = new URL(process.argv[2])
const name = `libsql${process.pid}`
// with a slash at its end: clients put what they ask for in place of what follows the last one
const path = `api/v1/sqlite/hrana/${name}/`
const http = new URL(path, base).href
const transports = { http, websocket: http.replace(/^http/, 'ws') }

for (const [transport, url] of Object.entries(transports)) {
  const client = createClient({ url, intMode: 'bigint' })
  const table = `t_${transport}`
  await client.batch(
    [
      `CREATE TABLE ${table} (id INTEGER PRIMARY KEY, big INTEGER, real REAL, text TEXT, blob BLOB)`,
      { sql: `INSERT INTO ${table} (big, real, text, blob) VALUES (?, ?, ?, ?)`, args: [9007199254740993n, 0.1, 'ü"\n', new Uint8Array([0, 255])] },
      { sql: `INSERT INTO ${table} (text) VALUES ($text)`, args: { text: 'named' } },
    ],
    'write',
  )
  const { rows, columns } = await client.execute(`SELECT * FROM ${table} ORDER BY id`)
  assert.deepEqual(columns, ['id', 'big', 'real', 'text', 'blob'])
  assert.equal(rows[0].big, 9007199254740993n)
  assert.equal(rows[0].real, 0.1)
  assert.equal(rows[0].text, 'ü"\n')
  assert.deepEqual([...new Uint8Array(rows[0].blob)], [0, 255])
  assert.equal(rows[1].blob, null)
  const infinite = await client.execute('SELECT 9e999 AS x')
  assert.equal(infinite.rows[0].x, Infinity)

  // a transaction that is kept, and one that is not
  const kept = await client.transaction('write')
  const made = await kept.execute(`INSERT INTO ${table} (text) VALUES ('kept') RETURNING id`)
  assert.equal(made.rows[0].id, 3n)
  assert.equal(made.rowsAffected, 1)
  await kept.commit()
  const lost = await client.transaction('write')
  await lost.execute(`DELETE FROM ${table}`)
  await lost.rollback()
  const count = async () => (await client.execute(`SELECT count(*) AS n FROM ${table}`)).rows[0].n
  assert.equal(await count(), 3n)

  // a batch happens as a whole
  await assert.rejects(client.batch([`INSERT INTO ${table} (text) VALUES ('x')`, `INSERT INTO ${table} (id) VALUES (1)`], 'write'), /UNIQUE/)
  assert.equal(await count(), 3n)
  await client.executeMultiple(`INSERT INTO ${table} (text) VALUES ('a;b'); UPDATE ${table} SET text = 'c' WHERE text = 'a;b'; -- done`)
  assert.equal(await count(), 4n)
  await assert.rejects(client.execute('SELECT absent'), /no such column/)
  await assert.rejects(client.execute("ATTACH '/etc/passwd' AS x"), /not available/)

  // many at once
  await Promise.all(Array.from({ length: 20 }, (_, n) => client.execute({ sql: `INSERT INTO ${table} (big) VALUES (?)`, args: [BigInt(n)] })))
  assert.equal(await count(), 24n)
  await client.migrate([`CREATE TABLE ${table}_more (x REFERENCES ${table})`, `INSERT INTO ${table}_more VALUES (999)`])
  client.close()

  const reader = createClient({ url: url.replace('/hrana/', '/hrana-read/') })
  assert.equal((await reader.execute(`SELECT count(*) AS n FROM ${table}`)).rows[0].n, 24)
  await assert.rejects(reader.execute(`DELETE FROM ${table}`), /only reads/)
  reader.close()
  console.log(`${transport}: holds`)
}
const gone = await fetch(new URL(`api/v1/sqlite/db?db=${name}`, base), { method: 'DELETE' })
assert.equal(gone.status, 200)
