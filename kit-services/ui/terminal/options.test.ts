import { expect, test } from 'vitest'
import { optionsOf, socketUrl, unusedId, validId } from './options.ts'

const HOST = '0123456789abcdef01234567-89abcdef0123456789abcdef-terminal-3.node1.containers.hoody.localhost'
const at = (query: string, host = HOST) => optionsOf(new URL(`https://${host}/${query}`))

test('the id comes from the query, else from the host', () => {
  expect(at('').terminalId).toBe('3')
  expect(at('?terminal_id=7').terminalId).toBe('7')
  expect(at('?terminal_id=0').terminalId).toBe('3')
  expect(at('', 'localhost').terminalId).toBeNull()
  expect(at('', HOST.replace('terminal-3', 'terminal-0')).terminalId).toBeNull()
  for (const bad of ['x', '-1', '65536', '1e3', '', '000001']) expect(validId(bad), bad).toBeNull()
})

test('words for the page stay with the page, the rest goes to the session', () => {
  const options = at('?title=T&fontSize=15&hide-toolbar&cwd=/tmp&env=A=1&env=B=2&readonly=true&theme=dark')
  expect(options).toMatchObject({ title: 'T', fontSize: 15, toolbar: false, readonly: true })
  expect(options.session.toString()).toBe('cwd=%2Ftmp&env=A%3D1&env=B%3D2&readonly=true')
})

test('values out of range are as if absent', () => {
  for (const bad of ['7', '73', 'x', '', '13.5']) expect(at(`?fontSize=${bad}`).fontSize, bad).toBeNull()
  expect(at('?hide-toolbar=false').toolbar).toBe(true)
  expect(at(`?title=${'x'.repeat(999)}`).title?.length).toBe(200)
})

test('what starts a session is asked for once', () => {
  const options = at('?cmd=bHM=&cwd=/tmp&welcome=true')
  const first = socketUrl(`https://${HOST}/?x`, options, '3', false)
  expect(first.protocol).toBe('wss:')
  expect(first.pathname).toBe('/api/v1/terminal/ws')
  expect(first.searchParams.get('cmd')).toBe('bHM=')
  const again = socketUrl(`https://${HOST}/`, options, '3', true)
  expect(again.search).toBe('?cwd=%2Ftmp&terminal_id=3')
  expect(socketUrl('http://localhost:1/deep/', at('', 'localhost'), null, false).href).toBe(
    'ws://localhost:1/deep/api/v1/terminal/ws',
  )
})

test('a new session takes the lowest free id', () => {
  expect(unusedId([])).toBe('1')
  expect(unusedId(['1', '2', '4'])).toBe('3')
})
