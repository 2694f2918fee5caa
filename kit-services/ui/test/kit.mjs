// A real kit on a port, for stories and clients that need more than the stand-in.
//
//   node test/kit.mjs --kitd PATH --service sqlite [--port N]     prints its address; ends with its input
import { spawn } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { createServer, request } from 'node:http'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'

const { values } = parseArgs({ options: { kitd: { type: 'string', default: 'kitd' }, service: { type: 'string', default: 'sqlite' }, port: { type: 'string', default: '0' } } })
const home = mkdtempSync(join(tmpdir(), 'hoody-kit-'))
const socketPath = join(home, 'kit.sock')
const kit = spawn(values.kitd, ['--local', '--home', home, '--socket', socketPath], { stdio: ['ignore', 'ignore', 'inherit'] })
const end = () => {
  kit.kill()
  rmSync(home, { recursive: true, force: true })
  process.exit(0)
}
kit.on('exit', () => {
  console.error('the kit ended')
  end()
})
for (let tries = 0; !existsSync(socketPath); tries++) {
  if (tries > 500) throw new Error('the kit does not answer')
  await sleep(20)
}

/** What the proxy says of a request. @param {import('node:http').IncomingMessage} it */
const told = (it) => ({ ...it.headers, 'x-hoody-edge-service': values.service, 'x-hoody-edge-index': '1', 'x-hoody-edge-host': it.headers.host ?? '' })

const server = createServer((asked, answer) => {
  const ask = request({ socketPath, method: asked.method, path: asked.url, headers: told(asked) }, (got) => {
    answer.writeHead(got.statusCode ?? 502, got.headers)
    got.pipe(answer)
  })
  ask.on('error', () => answer.destroy())
  asked.pipe(ask)
})
server.on('upgrade', (asked, client, head) => {
  const to = connect(socketPath, () => {
    const lines = Object.entries(told(asked)).map(([name, value]) => `${name}: ${value}`)
    to.write(`${asked.method} ${asked.url} HTTP/1.1\r\n${lines.join('\r\n')}\r\n\r\n`)
    to.write(head)
    to.pipe(client).pipe(to)
  })
  to.on('error', () => client.destroy())
  client.on('error', () => to.destroy())
})
server.listen(Number(values.port), '127.0.0.1', () => {
  const address = server.address()
  if (address && typeof address === 'object') console.log(`http://127.0.0.1:${address.port}/`)
})
process.stdin.resume().on('end', end)
process.on('SIGTERM', end)
process.on('SIGINT', end)
