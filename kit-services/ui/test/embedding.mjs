// Who may embed what a container serves, and how far its service workers reach, in a real browser.
//
// Played by the test `embedding_with_a_browser` of the proxy, which says where the containers are:
//
//   node test/embedding.mjs OPEN LISTED SHUT WORKER [--chromium PATH]
//
// Anybody may embed OPEN, pages of http://127.0.0.1 LISTED, no other host SHUT; WORKER is one over
// plain HTTP. `/page` is a page, `/deep/worker.js` a service worker that asks for the whole host.
import { createServer } from 'node:http'
import { parseArgs } from 'node:util'
import { chromium } from 'playwright-core'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { chromium: { type: 'string', default: '/usr/bin/chromium' } },
})
const [open, listed, shut, worker] = positionals.map((url) => new URL(url))
if (!open || !listed || !shut || !worker) throw new Error('four addresses are needed')

/** @param {string} what @param {unknown} holds */
function check(what, holds) {
  if (!holds) throw new Error(what)
  console.log(`  ${what}`)
}

/** Another site: a page that shows what it is asked for in a frame, and a worker of its own. */
const site = createServer((request, reply) => {
  const url = new URL(request.url ?? '/', 'http://site')
  if (url.pathname.endsWith('.js')) {
    reply.setHeader('content-type', 'text/javascript')
    reply.setHeader('service-worker-allowed', '/')
    return reply.end('self.onmessage = () => {}')
  }
  reply.setHeader('content-type', 'text/html')
  const framed = url.searchParams.get('frame')
  reply.end(`<!doctype html><title>elsewhere</title>${framed ? `<iframe src="${framed.replaceAll('"', '%22')}"></iframe>` : ''}`)
})
await new Promise((done) => site.listen(0, '127.0.0.1', () => done(undefined)))
const port = /** @type {import('node:net').AddressInfo} */ (site.address()).port

const browser = await chromium.launch({ executablePath: values.chromium, args: ['--no-sandbox'] })
try {
  const context = await browser.newContext({ ignoreHTTPSErrors: true })

  console.log('in frames of two other sites')
  const page = await context.newPage()
  for (const [from, url, shown] of /** @type {const} */ ([
    ['127.0.0.1', open, true],
    ['localhost', open, true],
    ['127.0.0.1', listed, true],
    ['localhost', listed, false],
    ['127.0.0.1', shut, false],
  ])) {
    await page.goto(`http://${from}:${port}/?frame=${encodeURIComponent(`${url.href}page`)}`)
    const frame = page.frames()[1]
    if (!frame) throw new Error('the page has no frame')
    // A frame that may not be shown has an error page in it, which belongs to nobody.
    const there = await frame.title().catch(() => '')
    check(`${url.host.slice(0, 8)} is ${shown ? 'shown' : 'not shown'} in a page of ${from}`, (there === 'a page') === shown)
  }
  const alone = await context.newPage()
  await alone.goto(`${shut.href}page`)
  check('by itself it is shown', (await alone.title()) === 'a page')
  const own = await alone.evaluate(async () => {
    const frame = document.createElement('iframe')
    frame.src = '/page?framed'
    const loaded = new Promise((done) => (frame.onload = done))
    document.body.append(frame)
    await loaded
    return frame.contentDocument?.title
  })
  check('its own host may frame it', own === 'a page')

  console.log('as a part of a page of another site')
  await page.goto(`http://127.0.0.1:${port}/`)
  /** @param {URL} url */
  const loads = (url) =>
    page.evaluate(async (href) => fetch(href, { mode: 'no-cors' }).then(() => true, () => false), `${url.href}page`)
  check('what may be embedded is loaded', await loads(open))
  check('what may not is not', !(await loads(shut)))

  console.log('a service worker')
  /** @param {string} scope */
  const registers = (scope) =>
    alone.evaluate(
      async (scope) =>
        navigator.serviceWorker.register('/deep/worker.js', { scope }).then(
          (registration) => new URL(registration.scope).pathname,
          (error) => error.name,
        ),
      scope,
    )
  await alone.goto(`http://localhost:${port}/`)
  check('elsewhere, it gets what its server lets it ask for', (await registers('/')) === '/')
  await alone.goto(`${worker.href}page`)
  check('a container cannot widen what it reaches', (await registers('/')) === 'SecurityError')
  check('below its own directory it works', (await registers('/deep/')) === '/deep/')
} finally {
  await browser.close()
  site.close()
}
