// The proxy's page for signing in, in a real browser: by itself, in a frame on another site, and
// what a page may do with the cookie it gets.
//
// Played by the test `signing_in_with_a_browser` of the proxy, which says where the gated host is:
//
//   node test/signin.mjs URL [--shots DIR] [--chromium PATH]
//
// The user is `ann`, the password `secret`, the token `t0ken`. At `/ws` a WebSocket says `hello`,
// at `/events` the first event is `0`.
import { mkdirSync } from 'node:fs'
import { createServer } from 'node:http'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { chromium } from 'playwright-core'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { shots: { type: 'string' }, chromium: { type: 'string', default: '/usr/bin/chromium' } },
})
const url = new URL(positionals[0] ?? '')
if (values.shots) mkdirSync(values.shots, { recursive: true })

const PHONE = { width: 390, height: 844 }
const DESK = { width: 1440, height: 900 }

/** @param {string} what @param {unknown} holds */
function check(what, holds) {
  if (!holds) throw new Error(what)
  console.log(`  ${what}`)
}

/** @param {import('playwright-core').Page} page @param {string} name */
async function shot(page, name) {
  if (values.shots) await page.screenshot({ path: join(values.shots, `${name}.png`) })
}

/**
 * What a page does with its cookie, from inside the page.
 * @param {import('playwright-core').Page | import('playwright-core').Frame} place
 */
async function use(place) {
  return place.evaluate(async () => {
    const soon = (/** @type {(done: (value: string) => void) => void} */ start) =>
      new Promise((done) => {
        start(done)
        setTimeout(() => done('nothing came'), 5000)
      })
    const got = await fetch('/some/path').then(async (reply) => [reply.status, await reply.json()])
    const posted = await fetch('/some/path', { method: 'POST', body: 'hello' }).then((reply) => reply.status)
    const socket = await soon((done) => {
      const socket = new WebSocket(`wss://${location.host}/ws`)
      socket.onmessage = (event) => done(event.data)
      socket.onerror = () => done('refused')
    })
    const event = await soon((done) => {
      const source = new EventSource('/events')
      source.onmessage = (event) => (source.close(), done(event.data))
      source.onerror = () => done('refused')
    })
    const cookies = got[1].headers.filter((/** @type {string[]} */ [name]) => name === 'cookie')
    return { status: got[0], posted, socket, event, cookies, script: document.cookie }
  })
}

/** @param {Awaited<ReturnType<typeof use>>} used */
function works(used) {
  check('fetch passes', used.status === 200 && used.posted === 200)
  check('a WebSocket passes', used.socket === 'hello')
  check('an EventSource passes', used.event === '0')
  check('neither the container nor a script sees the cookie', used.cookies.length === 0 && used.script === '')
}

/** A page of another site that shows the gated one. */
const other = createServer((_request, reply) => {
  reply.setHeader('content-type', 'text/html')
  reply.end(`<!doctype html><title>elsewhere</title><style>iframe{width:100%;height:90vh;border:0}</style><iframe src="${url.href}"></iframe>`)
})
await new Promise((done) => other.listen(0, '127.0.0.1', () => done(undefined)))
const elsewhere = `http://127.0.0.1:${/** @type {import('node:net').AddressInfo} */ (other.address()).port}/`

const browser = await chromium.launch({ executablePath: values.chromium, args: ['--no-sandbox'] })
try {
  for (const viewport of [PHONE, DESK]) {
    for (const colorScheme of /** @type {const} */ (['light', 'dark'])) {
      const name = `${viewport.width}x${viewport.height}-${colorScheme}`
      console.log(`top-level, ${name}`)
      const context = await browser.newContext({ viewport, colorScheme, ignoreHTTPSErrors: true })
      const page = await context.newPage()
      /** @type {string[]} */
      const faults = []
      /** @type {string[]} */
      const foreign = []
      page.on('console', (message) => message.type() === 'error' && !/401/.test(message.text()) && faults.push(message.text()))
      page.on('request', (request) => new URL(request.url()).host !== url.host && foreign.push(request.url()))
      const answer = await page.goto(`${url.href}docs?a=1&b=2`)
      check('it is asked with 401', answer?.status() === 401)
      check('the first field has the focus', await page.evaluate(() => document.activeElement?.id === 'username'))
      check('nothing is wider than the window', await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth))
      await shot(page, `sign-in-${name}`)
      await page.keyboard.type('ann')
      await page.keyboard.press('Tab')
      await page.keyboard.type('wrong')
      await page.keyboard.press('Enter')
      await page.getByRole('alert').waitFor()
      await shot(page, `wrong-${name}`)
      await page.getByLabel('User name').fill('ann')
      await page.getByLabel('Password').fill('secret')
      await page.getByRole('button', { name: 'Sign in' }).click()
      await page.waitForURL(`${url.href}docs?a=1&b=2`)
      works(await use(page))
      check('the policy stopped nothing', faults.length === 0 || !faults.some((it) => /Content Security/.test(it)))
      check('nothing was loaded from elsewhere', foreign.length === 0)
      const [cookie] = await context.cookies()
      check('the cookie is of this host, secure and out of reach', cookie?.name.startsWith('__Host-') && cookie.secure && cookie.httpOnly && cookie.sameSite === 'None')
      await page.goto(`${url.href}.hoody/sign-out`)
      await page.getByRole('button', { name: 'Sign in' }).waitFor()
      check('after signing out it asks again', (await context.cookies()).length === 0)
      await context.close()
    }
  }

  console.log('in a frame on another site')
  const context = await browser.newContext({ viewport: DESK, ignoreHTTPSErrors: true })
  const page = await context.newPage()
  await page.goto(elsewhere)
  const frame = page.frames()[1]
  if (!frame) throw new Error('the other site shows no frame')
  await frame.getByLabel('Access token').fill('t0ken')
  await shot(page, 'frame')
  await Promise.all([frame.waitForNavigation(), frame.getByRole('button', { name: 'Use the token' }).click()])
  works(await use(frame))
  const top = await context.newPage()
  const answer = await top.goto(url.href)
  check('the cookie of the frame is kept apart', answer?.status() === 401)

  console.log('from another site')
  const tried = await page.evaluate(async (/** @type {string} */ href) => {
    const post = await fetch(href, { method: 'POST', mode: 'no-cors', credentials: 'include' }).then(() => 'sent', () => 'not sent')
    const socket = await new Promise((done) => {
      const socket = new WebSocket(href.replace('https:', 'wss:') + 'ws')
      socket.onmessage = () => done('open')
      socket.onerror = () => done('refused')
    })
    return { post, socket }
  }, url.href)
  check('its WebSocket is refused', tried.socket === 'refused')
} finally {
  await browser.close()
  other.close()
}
