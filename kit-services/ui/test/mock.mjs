// A stand-in for the kit, for the pages' own tests: the files of a temporary folder, real shells,
// and the log of what is asked of them. It answers as the contract says and no more; it is no part of the product.
//
//   node test/mock.mjs [--port 4173]
//   http://<24 hex>-<24 hex>-terminal-1.mock.localhost:4173/
import { spawn, execFileSync } from 'node:child_process'
import { createReadStream, createWriteStream, existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { chmod, cp, lstat, mkdir, readdir, rename, rm, stat, truncate, utimes, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import { tmpdir } from 'node:os'
import { basename, dirname, extname, join, normalize } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { fileURLToPath } from 'node:url'
import { deflateSync } from 'node:zlib'
import { WebSocketServer } from 'ws'

const DIST = join(dirname(fileURLToPath(import.meta.url)), '..', 'dist')
export const COMPUTER = '0123456789abcdef01234567-89abcdef0123456789abcdef'
const HISTORY_BYTES = 256 << 10

const TYPES = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
  '.woff2': 'font/woff2',
  '.png': 'image/png',
  '.txt': 'text/plain; charset=utf-8',
  '.md': 'text/markdown; charset=utf-8',
  '.json': 'application/json',
  '.wav': 'audio/wav',
  '.pdf': 'application/pdf',
}

const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; " +
  "media-src 'self' blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; frame-src 'self' blob:; " +
  "manifest-src 'self'; base-uri 'none'; form-action 'self'"

/** @typedef {import('node:http').IncomingMessage} Request */
/** @typedef {import('node:http').ServerResponse} Response */

/**
 * @param {{ port?: number }} [wish]
 * @returns {Promise<{ url: (service: string, index?: number) => string, root: string, stop: () => Promise<void> }>}
 */
export async function start({ port = 0 } = {}) {
  const root = mkdtempSync(join(tmpdir(), 'hoody-ui-'))
  await furnish(root)
  const terminals = new Terminals(join(root, 'home/user'))
  const log = new Log()

  const server = createServer((request, response) => {
    const service = serviceOf(request)
    const url = new URL(request.url ?? '/', 'http://mock')
    log.write(service, request, response)
    const work =
      service === 'logs' ? logs(log, request, response, url) : service === 'files' ? files(root, request, response, url) : terminal(terminals, request, response, url)
    Promise.resolve(work).catch((error) => {
      if (!response.headersSent) refuse(response, ...reason(error))
      else response.destroy()
    })
  })
  const sockets = new WebSocketServer({ noServer: true, handleProtocols: (offered) => (offered.has('tty') ? 'tty' : false) })
  server.on('upgrade', (request, socket, head) => {
    const url = new URL(request.url ?? '/', 'http://mock')
    if (serviceOf(request) !== 'terminal' || url.pathname !== '/api/v1/terminal/ws') return socket.destroy()
    const shell = url.searchParams.get('shell')
    if (shell && !existsSync(shell)) return socket.end('HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n')
    sockets.handleUpgrade(request, socket, head, (client) => terminals.attach(client, url, request))
  })
  await new Promise((done) => server.listen(port, '127.0.0.1', () => done(undefined)))
  const address = server.address()
  if (!address || typeof address === 'string') throw new Error('the mock has no port')
  return {
    root,
    url: (service, index = 1) => `http://${COMPUTER}-${service}-${index}.mock.localhost:${address.port}/`,
    stop: async () => {
      terminals.stop()
      log.stop()
      for (const client of sockets.clients) client.terminate()
      server.closeAllConnections()
      await new Promise((done) => server.close(done))
      rmSync(root, { recursive: true, force: true })
    },
  }
}

/** @param {Request} request */
function serviceOf(request) {
  return /-(terminal|files|logs)-\d+\./.exec(request.headers.host ?? '')?.[1] ?? ''
}

/** @param {Request} request */
function indexOf(request) {
  return /-(?:terminal|files|logs)-(\d+)\./.exec(request.headers.host ?? '')?.[1] ?? '1'
}

/** @param {unknown} error @returns {[number, string]} */
function reason(error) {
  const { code, message } = /** @type {NodeJS.ErrnoException} */ (error)
  switch (code) {
    case 'ENOENT':
      return [404, 'no such file or directory']
    case 'EEXIST':
    case 'ENOTEMPTY':
    case 'ERR_FS_CP_EEXIST':
      return [409, 'already exists']
    case 'EACCES':
    case 'EPERM':
      return [403, 'permission denied']
    default:
      return [500, message]
  }
}

/** @param {Response} response @param {number} status @param {unknown} value */
function reply(response, status, value) {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(value))
}

/** @param {Response} response @param {number} status @param {string} error */
function refuse(response, status, error) {
  reply(response, status, { success: false, error })
}

/** The page and what it loads. @param {string} service @param {Response} response @param {URL} url @param {boolean} [wanted] */
function page(service, response, url, wanted = false) {
  const asset = /^\/_hoody\/ui\/(.+)$/.exec(url.pathname)?.[1]
  if (url.pathname !== '/' && !asset && !wanted) return false
  const file = join(DIST, asset ? normalize(`/${asset}`) : `${service}/index.html`)
  if (!existsSync(file)) {
    refuse(response, 404, 'no such page; run `npm run build`')
    return true
  }
  response.writeHead(200, {
    'content-type': TYPES[/** @type {keyof typeof TYPES} */ (extname(file))] ?? 'application/octet-stream',
    'cache-control': asset ? 'public, max-age=31536000, immutable' : 'no-cache',
    'x-content-type-options': 'nosniff',
    ...(asset ? {} : { 'content-security-policy': service === 'logs' ? POLICY.replace("connect-src 'self'", "connect-src 'self' http://*.mock.localhost:*") : POLICY }),
  })
  response.end(readFileSync(file))
  return true
}

// logs

class Log {
  /** @type {any[]} */
  entries = []
  /** @type {Set<Response>} */
  readers = new Set()
  #id = 0

  /** @param {any} entry */
  add(entry) {
    const now = Date.now()
    const whole = { id: ++this.#id, traceId: String(this.#id).padStart(32, '0'), tsMs: now, tsIso: new Date(now).toISOString(), source: 'edge', ...entry }
    this.entries.push(whole)
    for (const reader of this.readers) reader.write(`id: ${whole.id}\ndata: ${JSON.stringify(whole)}\n\n`)
  }

  /** @param {string} service @param {Request} request @param {Response} response */
  write(service, request, response) {
    const began = performance.now()
    response.once('finish', () => {
      const { statusCode: status } = response
      const level = service === 'logs' && status < 400 ? 'debug' : status >= 500 ? 'error' : status >= 400 ? 'warn' : 'info'
      const told = Object.entries(request.headers).map(([name, value]) => [name, /cookie|auth/.test(name) ? '***' : String(value)])
      this.add({
        kind: 'request',
        level,
        serviceName: service,
        method: request.method,
        url: `http://${request.headers.host}${request.url}`.replace(/(token=)[^&]*/, '$1***'),
        clientIp: '127.0.0.1',
        status,
        data: {
          index: Number(indexOf(request)),
          scheme: 'http',
          http: '1.1',
          durationMs: performance.now() - began,
          upstreamMs: (performance.now() - began) / 2,
          bytesIn: Number(request.headers['content-length'] ?? 0),
          bytesOut: 512,
          userAgent: request.headers['user-agent'],
          contentType: String(response.getHeader('content-type') ?? ''),
          headers: Object.fromEntries(told),
        },
      })
    })
  }

  stop() {
    for (const reader of this.readers) reader.destroy()
  }
}

/** @param {Log} log @param {Request} request @param {Response} response @param {URL} url */
async function logs(log, request, response, url) {
  if (page('logs', response, url)) return
  const wish = url.searchParams
  if (url.pathname === '/_logs' && request.method === 'DELETE') {
    log.entries = []
    for (const reader of log.readers) reader.write('id:\nevent: reset\ndata: {"reason":"cleared"}\n\n')
    log.add({ kind: 'event', level: 'info', serviceName: 'logs', data: { event: 'cleared', message: 'the log was cleared by 127.0.0.1' } })
    return reply(response, 200, { cleared: true })
  }
  if (url.pathname === '/_logs') {
    const [levels, text, before] = [wish.get('level')?.split(','), (wish.get('search') ?? '').toLowerCase(), Number(wish.get('beforeId') ?? Infinity)]
    const found = log.entries.filter(
      (entry) =>
        entry.id < before &&
        (!levels || levels.includes(entry.level)) &&
        (!wish.get('method') || wish.get('method') === entry.method) &&
        (!wish.get('serviceName') || wish.get('serviceName') === entry.serviceName) &&
        (!wish.get('status') || String(entry.status)[0] === wish.get('status')?.[0]) &&
        `${entry.url} ${entry.clientIp} ${entry.traceId}`.toLowerCase().includes(text),
    )
    return reply(response, 200, found.slice(-Number(wish.get('last') ?? 200)))
  }
  if (url.pathname === '/_logs/stream') {
    response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' })
    response.write('retry: 2000\n: connected\n\n')
    const after = request.headers['last-event-id']
    if (after) for (const entry of log.entries) if (entry.id > Number(after)) response.write(`id: ${entry.id}\ndata: ${JSON.stringify(entry)}\n\n`)
    log.readers.add(response)
    response.once('close', () => log.readers.delete(response))
    return
  }
  reply(response, 404, { error: 'NOT_FOUND', message: 'no such operation' })
}

// terminal

/** @param {Terminals} terminals @param {Request} request @param {Response} response @param {URL} url */
async function terminal(terminals, request, response, url) {
  if (page('terminal', response, url)) return
  if (url.pathname === '/api/v1/terminal/health') return reply(response, 200, { status: 'ok', service: 'terminal' })
  if (url.pathname === '/api/v1/terminal/create') {
    const chunks = []
    for await (const chunk of request) chunks.push(chunk)
    const { shell, terminal_id } = JSON.parse(Buffer.concat(chunks).toString())
    if (shell && !existsSync(shell)) return reply(response, 400, { error: 'VALIDATION_ERROR', message: `no shell ${shell} on this computer` })
    return reply(response, 200, { status: 'ok', terminal_id })
  }
  if (url.pathname === '/api/v1/terminal/sessions') return reply(response, 200, terminals.list())
  if (url.pathname === '/api/v1/terminal/state') return reply(response, 200, { success: true })
  if (/^\/api\/v1\/terminal\/(drop-begin|upload|drop-commit)$/.test(url.pathname)) return terminals.drop(request, response, url)
  const id = /^\/api\/v1\/terminal\/(\d+)$/.exec(url.pathname)?.[1]
  if (request.method === 'DELETE' && id) {
    if (!terminals.end(id)) return reply(response, 404, { error: 'NOT_FOUND', message: `no session ${id}` })
    return reply(response, 200, { success: true })
  }
  reply(response, 404, { error: 'NOT_FOUND', message: 'no such operation' })
}

class Terminals {
  /** @type {Map<string, Shell>} */
  #shells = new Map()
  /** @param {string} home */
  constructor(home) {
    this.home = home
  }

  list() {
    return [...this.#shells].map(([id, shell]) => ({
      terminal_id: id,
      shell: '/bin/bash',
      status: 'running',
      created_at: shell.created,
      command_history: [],
    }))
  }

  /** Files in slices of a few bytes, then their paths typed. @param {Request} request @param {Response} response @param {URL} url */
  async drop(request, response, url) {
    const chunks = []
    for await (const chunk of request) chunks.push(chunk)
    const body = Buffer.concat(chunks)
    const wish = url.searchParams
    const root = join(this.home, '.drops', wish.get('drop') ?? String(Date.now()))
    if (url.pathname.endsWith('drop-begin')) {
      await mkdir(root, { recursive: true })
      return reply(response, 200, { success: true, drop: basename(root), token: 't', root, max_slice: 5, max_bytes: 1 << 20, max_items: 100 })
    }
    if (url.pathname.endsWith('upload')) {
      const file = join(root, normalize(`/${wish.get('path')}`))
      const size = existsSync(file) ? (await stat(file)).size : 0
      if (size !== Number(wish.get('offset'))) return reply(response, 409, { error: 'Conflict', message: 'it ends elsewhere', size })
      await mkdir(dirname(file), { recursive: true })
      await writeFile(file, body, { flag: 'a' })
      return reply(response, 200, { success: true, size: size + body.length })
    }
    const { items } = JSON.parse(body.toString())
    for (const item of items) {
      const there = join(root, normalize(`/${item.p}`))
      if (item.d) await mkdir(there, { recursive: true })
      else if ((await stat(there)).size !== item.s) return reply(response, 409, { error: 'Conflict', message: 'another size' })
    }
    const tops = [...new Set(items.map((/** @type {{ p: string }} */ item) => item.p.split('/')[0]))]
    this.#shells.get(wish.get('terminal_id') ?? '')?.type(tops.map((top) => `'${join(root, String(top))}' `).join(''))
    reply(response, 200, { success: true, announced: 'paths' })
  }

  /** @param {string} id */
  end(id) {
    const shell = this.#shells.get(id)
    shell?.kill()
    return shell !== undefined
  }

  stop() {
    for (const shell of this.#shells.values()) shell.kill()
  }

  /** @param {import('ws').WebSocket} client @param {URL} url @param {Request} request */
  attach(client, url, request) {
    const id = url.searchParams.get('terminal_id') ?? indexOf(request)
    client.once('message', (data) => {
      const { columns, rows } = JSON.parse(String(data))
      let shell = this.#shells.get(id)
      if (!shell) {
        shell = new Shell(this.home, url, columns, rows, () => this.#shells.delete(id))
        this.#shells.set(id, shell)
      } else shell.resize(columns, rows)
      shell.join(client, id)
    })
  }
}

class Shell {
  created = new Date().toISOString()
  #tty = ''
  #history = Buffer.alloc(0)
  /** @type {Set<import('ws').WebSocket>} */
  #clients = new Set()

  /** @param {string} home @param {URL} url @param {number} columns @param {number} rows @param {() => void} gone */
  constructor(home, url, columns, rows, gone) {
    const note = join(tmpdir(), `hoody-tty-${process.pid}-${Math.random().toString(36).slice(2)}`)
    const asked = url.searchParams.get('cmd')
    const command = asked ? Buffer.from(asked, 'base64').toString() : `exec bash --rcfile ${join(home, '..', 'rc')} -i`
    this.#process = spawn('script', ['-qfec', `tty > ${note}; stty cols ${columns} rows ${rows}; ${command}`, '/dev/null'], {
      cwd: home,
      env: {
        PATH: process.env['PATH'],
        HOME: home,
        TERM: 'xterm-256color',
        COLORTERM: 'truecolor',
        LANG: 'C.UTF-8',
        SHELL: '/bin/bash',
      },
    })
    this.#process.stdout.on('data', (/** @type {Buffer} */ data) => {
      if (!this.#tty && existsSync(note)) {
        this.#tty = readFileSync(note, 'utf8').trim()
        rmSync(note)
      }
      this.#history = Buffer.concat([this.#history, data]).subarray(-HISTORY_BYTES)
      for (const client of this.#clients) client.send(Buffer.concat([Buffer.from('0'), data]))
    })
    this.#process.on('exit', () => {
      gone()
      for (const client of this.#clients) client.close(4000, 'the shell ended with code 0')
    })
  }
  /** @type {import('node:child_process').ChildProcessWithoutNullStreams} */
  #process

  /** @param {string} text */
  type(text) {
    this.#process.stdin.write(text)
  }

  kill() {
    this.#process.kill('SIGKILL')
  }

  /** @param {number} columns @param {number} rows */
  resize(columns, rows) {
    if (!this.#tty) return
    try {
      execFileSync('stty', ['-F', this.#tty, 'cols', String(columns), 'rows', String(rows)], { stdio: 'ignore' })
    } catch {
      // the shell has ended, and its terminal with it
    }
  }

  /** @param {import('ws').WebSocket} client @param {string} id */
  join(client, id) {
    client.send(Buffer.from(`3${id}`))
    client.send(Buffer.from('4bash'))
    if (this.#history.length) client.send(Buffer.concat([Buffer.from('0'), this.#history]))
    this.#clients.add(client)
    client.on('close', () => this.#clients.delete(client))
    client.on('message', (data, binary) => {
      const bytes = /** @type {Buffer} */ (data)
      const command = String.fromCharCode(bytes[0] ?? 0)
      if (binary && command === '0') this.#process.stdin.write(bytes.subarray(1))
      else if (binary && command === '2') this.#process.stdout.pause()
      else if (binary && command === '3') this.#process.stdout.resume()
      else if (!binary && command === '1') {
        const { columns, rows } = JSON.parse(String(bytes.subarray(1)))
        this.resize(columns, rows)
      }
    })
  }
}

// files

/** @param {string} root @param {Request} request @param {Response} response @param {URL} url */
async function files(root, request, response, url) {
  // a browser that opens the address of a folder gets the page there
  const wanted = !url.pathname.startsWith('/api/') && !url.pathname.startsWith('/_hoody/') && (request.headers.accept ?? '').includes('text/html')
  if (page('files', response, url, wanted)) return
  if (url.pathname === '/api/v1/files/health') return reply(response, 200, { status: 'ok', service: 'files' })
  const query = url.searchParams
  const inside = (/** @type {string} */ path) => join(root, normalize(`/${path}`))
  const [, verb, rest] = /^\/api\/v1\/files(?:\/(stat|copy|move)(?=\/))?\/?(.*)$/.exec(url.pathname) ?? []
  if (rest === undefined) return refuse(response, 404, 'no such operation')
  const name = decodeURIComponent(rest)
  const path = inside(name)
  switch (`${request.method} ${verb ?? ''}`) {
    case 'GET stat':
      return reply(response, 200, { ...(await item(path)), path: `/${name}`, permissions: '644', owner: 'user', group: 'user' })
    case 'POST copy':
    case 'POST move': {
      const to = inside(query.get(`${verb}_to`) ?? '')
      if (query.get('overwrite') !== 'true' && existsSync(to)) return refuse(response, 409, 'destination already exists')
      if (verb === 'move') await rename(path, to)
      else await cp(path, to, { recursive: true, errorOnExist: true, force: false, preserveTimestamps: true })
      return reply(response, 200, { success: true, source: `/${name}`, destination: query.get(`${verb}_to`) })
    }
    case 'POST ':
      if (!query.has('mkdir')) return refuse(response, 400, 'Unknown operation')
      await mkdir(path)
      return reply(response, 200, { success: true })
    case 'DELETE ':
      await lstat(path)
      await rm(path, { recursive: true })
      return reply(response, 200, { success: true, message: 'deleted' })
    case 'PUT ': {
      const expected = request.headers['if-match']
      if (expected && (await etag(path).catch(() => '')) !== expected) return refuse(response, 412, 'the file has changed')
      await mkdir(dirname(path), { recursive: true })
      await pipeline(request, createWriteStream(path))
      const { size } = await stat(path)
      response.setHeader('etag', await etag(path))
      return reply(response, 200, { success: true, path: `/${name}`, new_size: size })
    }
    case 'GET ': {
      const found = await stat(path)
      if (found.isDirectory()) {
        if (basename(path) === 'private') return refuse(response, 403, 'permission denied')
        const names = await readdir(path)
        const paths = await Promise.all(names.map((entry) => item(join(path, entry))))
        return reply(response, 200, { kind: 'Index', href: `/${name}`, allow_archive: true, allow_upload: true, allow_delete: true, allow_search: true, dir_exists: true, auth: false, uri_prefix: '/', user: null, paths })
      }
      const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '')
      const from = range ? Number(range[1]) : 0
      const to = range?.[2] ? Math.min(Number(range[2]), found.size - 1) : found.size - 1
      if (range && from >= found.size) return response.writeHead(416, { 'content-range': `bytes */${found.size}` }).end()
      response.writeHead(range ? 206 : 200, {
        'content-type': TYPES[/** @type {keyof typeof TYPES} */ (extname(path))] ?? 'application/octet-stream',
        'content-length': Math.max(0, to - from + 1),
        'accept-ranges': 'bytes',
        etag: await etag(path),
        ...(range ? { 'content-range': `bytes ${from}-${to}/${found.size}` } : {}),
      })
      if (found.size === 0) return response.end()
      return pipeline(createReadStream(path, { start: from, end: to }), response)
    }
    default:
      return refuse(response, 405, 'not allowed')
  }
}

/** @param {string} path */
async function etag(path) {
  const { size, mtimeMs } = await stat(path)
  return `"${size.toString(16)}-${Math.round(mtimeMs).toString(16)}"`
}

/** @param {string} path */
async function item(path) {
  const link = await lstat(path)
  const found = await stat(path).catch(() => link)
  const type = `${link.isSymbolicLink() ? 'Symlink' : ''}${found.isDirectory() ? 'Dir' : 'File'}`
  return { name: basename(path), path_type: type, size: found.isDirectory() ? 0 : found.size, mtime: Math.round(found.mtimeMs), revisions: null }
}

/** A computer that looks lived in. @param {string} root */
async function furnish(root) {
  const home = join(root, 'home/user')
  for (const dir of ['etc', 'tmp', 'var/log', 'private', 'home/user/projects/api/src', 'home/user/projects/site', 'home/user/pictures', 'home/user/music', 'home/user/documents', 'home/user/.config', 'home/user/many'])
    await mkdir(join(root, dir), { recursive: true })
  /** @type {Record<string, string | Buffer>} */
  const contents = {
    'etc/hostname': 'computer\n',
    'home/user/README.md': '# Notes\n\nWhat this computer is for, and what runs on it.\n\n- the API in `projects/api`\n- a nightly backup at 03:00\n- the site, built by CI\n',
    'home/user/todo.txt': 'water the plants\nship the release\n',
    'home/user/deploy.sh': '#!/bin/sh\nset -eu\ncargo build --release\nrsync -a target/release/api web:/srv/api\n',
    'home/user/backup-2026-11-21.tar.gz': Buffer.alloc(48_213_004 >> 4),
    'home/user/metrics.db': Buffer.alloc(3_145_728),
    'home/user/.bashrc': 'alias ll="ls -l"\n',
    'home/user/.profile': '# profile\n',
    'home/user/notes with spaces & ünïcode #1?.md': 'A name that needs care.\n',
    'home/user/documents/plan.pdf': pdf(),
    'home/user/music/tone.wav': tone(),
    'home/user/pictures/sunset.png': picture(480, 320),
    'home/user/pictures/harbour.png': picture(320, 400),
    'home/user/projects/api/Cargo.toml': '[package]\nname = "api"\nversion = "0.1.0"\nedition = "2024"\n',
    'home/user/projects/api/src/main.rs': 'fn main() {\n    println!("hello");\n}\n',
    'home/user/projects/site/index.html': '<!doctype html><script>document.title="bad"</script><p>hi</p>\n',
    'home/user/projects/site/data.json': '{"a": [1, 2, 3]}\n',
  }
  const prompt = '\\[\\e]0;\\w\\a\\e[1;32m\\]user@computer\\[\\e[0m\\]:\\[\\e[1;34m\\]\\w\\[\\e[0m\\]\\$ '
  await writeFile(join(root, 'home/rc'), `PS1='${prompt}'\nalias ls='ls --color=auto'\n`)
  const days = 86_400_000
  let age = 0
  for (const [name, content] of Object.entries(contents)) {
    const path = join(root, name)
    await writeFile(path, content)
    const at = new Date(Date.now() - age)
    await utimes(path, at, at)
    age += 1.7 * days
  }
  await truncate(join(home, 'metrics.db'), 3_145_728)
  await chmod(join(home, 'deploy.sh'), 0o755)
  for (let n = 0; n < 1200; n++) await writeFile(join(home, 'many', `report-${n}.csv`), `id,value\n${n},${n * n}\n`)
}

/** @param {number} width @param {number} height */
function picture(width, height) {
  const raw = Buffer.alloc((width * 3 + 1) * height)
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) {
      const at = y * (width * 3 + 1) + 1 + x * 3
      const t = y / height
      raw[at] = 40 + 215 * t
      raw[at + 1] = 60 + 90 * t + 30 * Math.sin(x / 40)
      raw[at + 2] = 130 - 60 * t
    }
  const chunk = (/** @type {string} */ type, /** @type {Buffer} */ data) => {
    const body = Buffer.concat([Buffer.from(type), data])
    const out = Buffer.alloc(body.length + 8)
    out.writeUInt32BE(data.length)
    body.copy(out, 4)
    out.writeUInt32BE(crc(body), body.length + 4)
    return out
  }
  const header = Buffer.alloc(13)
  header.writeUInt32BE(width)
  header.writeUInt32BE(height, 4)
  header.set([8, 2, 0, 0, 0], 8)
  return Buffer.concat([Buffer.from('\x89PNG\r\n\x1a\n', 'latin1'), chunk('IHDR', header), chunk('IDAT', deflateSync(raw)), chunk('IEND', Buffer.alloc(0))])
}

/** @param {Buffer} bytes */
function crc(bytes) {
  let sum = ~0
  for (const byte of bytes) {
    sum ^= byte
    for (let n = 0; n < 8; n++) sum = sum & 1 ? (sum >>> 1) ^ 0xedb88320 : sum >>> 1
  }
  return ~sum >>> 0
}

function tone() {
  const rate = 8000
  const samples = rate * 2
  const out = Buffer.alloc(44 + samples)
  out.write('RIFF', 0)
  out.writeUInt32LE(36 + samples, 4)
  out.write('WAVEfmt ', 8)
  out.writeUInt32LE(16, 16)
  out.writeUInt16LE(1, 20)
  out.writeUInt16LE(1, 22)
  out.writeUInt32LE(rate, 24)
  out.writeUInt32LE(rate, 28)
  out.writeUInt16LE(1, 32)
  out.writeUInt16LE(8, 34)
  out.write('data', 36)
  out.writeUInt32LE(samples, 40)
  for (let n = 0; n < samples; n++) out[44 + n] = 128 + 60 * Math.sin((2 * Math.PI * 440 * n) / rate)
  return out
}

function pdf() {
  const objects = [
    '<< /Type /Catalog /Pages 2 0 R >>',
    '<< /Type /Pages /Kids [3 0 R] /Count 1 >>',
    '<< /Type /Page /Parent 2 0 R /MediaBox [0 0 300 200] /Contents 4 0 R /Resources << /Font << /F1 5 0 R >> >> >>',
    '<< /Length 42 >>\nstream\nBT /F1 24 Tf 60 100 Td (The plan) Tj ET   \nendstream',
    '<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>',
  ]
  let text = '%PDF-1.4\n'
  const offsets = objects.map((body, n) => {
    const at = text.length
    text += `${n + 1} 0 obj\n${body}\nendobj\n`
    return at
  })
  const xref = text.length
  text += `xref\n0 6\n0000000000 65535 f \n${offsets.map((at) => `${String(at).padStart(10, '0')} 00000 n \n`).join('')}`
  text += `trailer << /Size 6 /Root 1 0 R >>\nstartxref\n${xref}\n%%EOF\n`
  return Buffer.from(text, 'latin1')
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const at = process.argv.indexOf('--port')
  const mock = await start({ port: at > 0 ? Number(process.argv[at + 1]) : 4173 })
  console.log(`terminal  ${mock.url('terminal')}\nfiles     ${mock.url('files')}\nlogs      ${mock.url('logs')}\nfolder    ${mock.root}`)
  for (const signal of /** @type {const} */ (['SIGINT', 'SIGTERM']))
    process.on(signal, () => void mock.stop().then(() => process.exit(0)))
}
