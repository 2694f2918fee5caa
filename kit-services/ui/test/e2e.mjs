// The main path of every page, in a real browser, at the size of a phone and of a desk.
//
//   npm run e2e                                            against the stand-in of mock.mjs
//   npm run e2e -- --base https://P-C-terminal-1.NODE.containers.DOMAIN    against a real kit
//
// --only NAME     stories whose name contains it       --size 390x844   one size only
// --shots DIR     screenshots of every step            --chromium PATH  the browser
// --url SERVICE=URL  the page of one service, where the names of the hosts do not tell
import { existsSync, mkdirSync, readdirSync } from 'node:fs'
import { join, dirname } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { chromium } from 'playwright-core'
import { start } from './mock.mjs'

const { values } = parseArgs({
  options: {
    base: { type: 'string' },
    url: { type: 'string', multiple: true, default: [] },
    only: { type: 'string', default: '' },
    size: { type: 'string', default: '' },
    shots: { type: 'string' },
    chromium: { type: 'string', default: '/usr/bin/chromium' },
  },
})

const HERE = dirname(fileURLToPath(import.meta.url))
const SIZES = [
  { name: '390x844', width: 390, height: 844, phone: true },
  { name: '1440x900', width: 1440, height: 900, phone: false },
]
/** A page that is slower to its first paint, at the median of its loads, is too slow on loopback. */
const FIRST_PAINT_MS = 100
const LOADS = 7

if (!existsSync(values.chromium)) {
  console.error(`no browser at ${values.chromium}; install it with: apt-get install -y chromium`)
  process.exit(2)
}

const mock = values.base || values.url.length > 0 ? null : await start()

/** @param {string} service */
function address(service) {
  const own = values.url.find((pair) => pair.startsWith(`${service}=`))
  if (own) return own.slice(service.length + 1)
  if (mock) return mock.url(service)
  const url = new URL(values.base ?? '')
  url.hostname = url.hostname.replace(/^([0-9a-f]{24}-[0-9a-f]{24})-[a-z]+-(\d+)\./, `$1-${service}-$2.`)
  return url.href
}

/**
 * @typedef {object} Stage
 * @property {import('playwright-core').Page} page
 * @property {import('playwright-core').BrowserContext} context
 * @property {string} url the page's address
 * @property {boolean} phone
 * @property {(name: string) => Promise<void>} shot
 * @property {(what: string, holds: unknown) => void} check
 * @property {(ask: () => unknown, what: string, ms?: number) => Promise<void>} until
 * @property {(pattern: RegExp) => void} expect a complaint of the browser that belongs to the story
 */

/** @type {{ name: string, service: string, tell: (stage: Stage) => Promise<void> }[]} */
const stories = []
for (const file of readdirSync(HERE).filter((name) => name.endsWith('.story.mjs')).sort()) {
  const service = file.replace('.story.mjs', '')
  const module = await import(join(HERE, file))
  // what has no stand-in is told on a real kit only
  if (module.real && mock) continue
  if (!mock && values.base === undefined && !values.url.some((pair) => pair.startsWith(`${service}=`))) continue
  for (const [name, tell] of Object.entries(module.stories)) stories.push({ name: `${service}: ${name}`, service, tell: /** @type {any} */ (tell) })
}

const browser = await chromium.launch({
  executablePath: values.chromium,
  headless: true,
  args: [
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    '--host-resolver-rules=MAP *.localhost 127.0.0.1',
  ],
})

let failures = 0
try {
  for (const size of SIZES) {
    if (values.size && values.size !== size.name) continue
    for (const story of stories) {
      if (!`${story.name} ${size.name}`.includes(values.only)) continue
      failures += await tell(story, size)
    }
  }
  if (!values.only) for (const service of new Set(stories.map((story) => story.service))) failures += await paint(service)
} finally {
  await browser.close()
  await mock?.stop()
}
console.log(failures === 0 ? 'all stories hold' : `${failures} failed`)
process.exit(failures === 0 ? 0 : 1)

/** @param {typeof stories[number]} story @param {typeof SIZES[number]} size */
async function tell(story, size) {
  const began = Date.now()
  const url = address(story.service)
  const context = await browser.newContext({
    viewport: { width: size.width, height: size.height },
    hasTouch: size.phone,
    isMobile: size.phone,
    deviceScaleFactor: size.phone ? 2 : 1,
    ignoreHTTPSErrors: true,
    permissions: ['clipboard-read', 'clipboard-write'],
  })
  context.setDefaultTimeout(10_000)
  const page = await context.newPage()
  /** @type {string[]} */
  const complaints = []
  /** @type {RegExp[]} */
  const expected = []
  const host = new URL(url).host
  page.on('pageerror', (error) => complaints.push(`error: ${error.message}`))
  page.on('console', (message) => {
    if (message.type() === 'error') complaints.push(`console: ${message.text()} ${message.location().url}`)
  })
  page.on('request', (request) => {
    const to = new URL(request.url())
    if (/^(https?|wss?):$/.test(to.protocol) && to.host !== host) complaints.push(`external request: ${request.url()}`)
  })
  let step = 0
  const shot = async (/** @type {string} */ name) => {
    if (!values.shots) return
    mkdirSync(values.shots, { recursive: true })
    for (const scheme of /** @type {const} */ (['light', 'dark'])) {
      await page.emulateMedia({ colorScheme: scheme })
      await page.waitForTimeout(120)
      await page.screenshot({ path: join(values.shots, `${story.name.replace(/\W+/g, '-')}-${step}-${name}-${size.name}-${scheme}.png`) })
    }
    step++
  }
  try {
    await story.tell({
      page,
      context,
      url,
      phone: size.phone,
      shot,
      check: (what, holds) => {
        if (!holds) throw new Error(`expected: ${what}`)
      },
      until: async (ask, what, ms = 8000) => {
        const end = Date.now() + ms
        while (!(await ask())) {
          if (Date.now() > end) throw new Error(`expected within ${ms} ms: ${what}`)
          await page.waitForTimeout(40)
        }
      },
      expect: (pattern) => expected.push(pattern),
    })
    const real = complaints.filter((text) => !expected.some((pattern) => pattern.test(text)))
    if (real.length > 0) throw new Error(`the browser complains:\n      ${[...new Set(real)].join('\n      ')}`)
    console.log(`  ok    ${story.name} (${size.name}, ${Date.now() - began} ms)`)
    return 0
  } catch (error) {
    console.log(`  FAIL  ${story.name} (${size.name})\n      ${error instanceof Error ? error.message : error}`)
    if (values.shots) await page.screenshot({ path: join(values.shots, `FAIL-${story.name.replace(/\W+/g, '-')}-${size.name}.png`) }).catch(() => undefined)
    return 1
  } finally {
    await context.close()
  }
}

/** The first paint, with nothing in the cache. @param {string} service */
async function paint(service) {
  const times = []
  for (let n = 0; n < LOADS; n++) {
    const context = await browser.newContext({ ignoreHTTPSErrors: true, viewport: { width: 1440, height: 900 } })
    const page = await context.newPage()
    await page.goto(address(service))
    const at = await page.waitForFunction(() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime)
    times.push(Number(await at.jsonValue()))
    await context.close()
  }
  times.sort((a, b) => a - b)
  const median = times[Math.floor(times.length / 2)] ?? Infinity
  const slow = median > FIRST_PAINT_MS
  console.log(`  ${slow ? 'slow ' : 'ok   '} ${service}: first paint ${median.toFixed(0)} ms at the median of ${LOADS} (${times[0]?.toFixed(0)} to ${times.at(-1)?.toFixed(0)}), goal ${FIRST_PAINT_MS}`)
  // a busy machine is slow too: a number to look at, not a reason to fail
  return 0
}
