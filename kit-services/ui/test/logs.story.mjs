import { request as plain } from 'node:http'
import { request as secure } from 'node:https'

/** @typedef {any} Stage */

/** A mark of this story in addresses, so that those of others are left out. */
const mark = () => `story-${Date.now().toString(36)}${Math.floor(Math.random() * 1e6).toString(36)}`

/** The address of another service of this computer. @param {string} url @param {string} service */
const beside = (url, service) => url.replace(/-logs-(\d+)\./, `-${service}-1.`)

/**
 * Ask a service of the computer as somebody else would.
 * @param {Stage} stage @param {string} path
 * @param {{ method?: string, headers?: Record<string, string>, data?: string }} [init]
 * @returns {Promise<number | undefined>}
 */
function visit({ url }, path, { method = 'GET', headers = {}, data } = {}) {
  const to = new URL(path, beside(url, 'files'))
  return new Promise((done, fail) => {
    const ask = (to.protocol === 'https:' ? secure : plain)(to, {
      method,
      headers: { 'user-agent': 'story', ...headers, ...(data ? { 'content-length': String(Buffer.byteLength(data)) } : {}) },
      rejectUnauthorized: false,
      // names below localhost are this machine's, whatever its resolver says
      ...(to.hostname.endsWith('.localhost') ? { lookup: (/** @type {string} */ _host, /** @type {unknown} */ _options, /** @type {Function} */ found) => found(null, [{ address: '127.0.0.1', family: 4 }]) } : {}),
    })
    ask.on('error', fail)
    ask.on('response', (answer) => answer.resume().on('end', () => done(answer.statusCode)))
    ask.end(data)
  })
}

/** @param {import('playwright-core').Page} page @param {string} text */
const row = (page, text) => page.locator('.rows .row', { hasText: text })

/** @param {Stage} stage @param {string} [hash] */
async function enter({ page, url }, hash = '') {
  await page.goto(`${url}${hash}`)
  await page.waitForSelector('#live[data-state=live]')
}

/** @param {Stage} stage @param {string} text */
async function search({ page }, text) {
  // on a phone it is behind a button until it is used
  if (await page.locator('#seek').isVisible()) await page.locator('#seek').click()
  await page.locator('#search').fill(text)
}

/** @type {Record<string, (stage: Stage) => Promise<void>>} */
export const stories = {
  'requests appear as they come, and are found': async (stage) => {
    const { page, until, shot, check } = stage
    const here = mark()
    await visit(stage, `api/v1/files/stat/${here}-before?token=sesame`)
    await enter(stage)
    await row(page, `${here}-before`).waitFor()
    check('no secret on the page', !(await page.content()).includes('sesame'))
    await visit(stage, `api/v1/files/${here}-live?mkdir=`, { method: 'POST' })
    await visit(stage, `api/v1/files/${here}-live`, { method: 'DELETE' })
    await row(page, `${here}-live`).first().waitFor()
    for (let n = 0; n < 24; n++) await visit(stage, `api/v1/files/tmp/${here}/${n}?list=&depth=${n}`)
    await row(page, `${here}/23`).waitFor()
    await shot('list')
    const first = await page.locator('.rows .row').first().innerText()
    check(`the newest on top: ${first}`, first.includes(`${here}/23`))
    await search(stage, `${here}-LIVE`)
    await until(async () => (await page.locator('.rows .row').count()) === 2, 'both requests that fit')
    await page.locator('#methods').click()
    await page.getByRole('menuitemradio', { name: 'DELETE' }).click()
    await until(async () => (await page.locator('.rows .row').count()) === 1, 'the one that fits')
    await shot('filtered')
    check('the address keeps the view', page.url().includes(`q=${here}-LIVE`) && page.url().includes('method=DELETE'))
    await page.reload()
    await row(page, `${here}-live`).waitFor()
    await until(async () => (await page.locator('.rows .row').count()) === 1, 'the same view')
    await page.locator('#everything').click()
    await row(page, `${here}/23`).waitFor()
    await search(stage, 'nothing-has-this')
    await page.waitForSelector('#nothing')
    await shot('nothing')
  },

  'one request in full, by keyboard': async (stage) => {
    const { page, until, shot, check } = stage
    const here = mark()
    await visit(stage, `api/v1/files/stat/${here}-one?token=sesame`, { headers: { authorization: 'Bearer sesame', accept: 'application/json' } })
    await visit(stage, `api/v1/files/stat/${here}-two`)
    await enter(stage)
    await row(page, `${here}-two`).waitFor()
    await page.locator('body').press('/')
    await page.keyboard.type(here)
    await until(async () => (await page.locator('.rows .row').count()) === 2, 'both')
    await page.keyboard.press('ArrowDown')
    await page.keyboard.press('ArrowDown')
    await page.keyboard.press('ArrowDown')
    const detail = page.locator('#detail')
    await detail.getByText(`${here}-one`).first().waitFor()
    const text = await detail.innerText()
    check(`no secret: ${text}`, !text.includes('sesame') && text.includes('not kept'))
    check('the answer in words', text.includes('404 Not Found'))
    await shot('request')
    await page.keyboard.press('Enter')
    check('the keyboard is in the request', await page.evaluate(() => document.activeElement?.id === 'detail'))
    await page.keyboard.press('Escape')
    await until(async () => (await detail.count()) === 0, 'it closes')
    check('and back in the list', await page.evaluate(() => document.activeElement?.id === 'rows'))
  },

  'a request is sent again': async (stage) => {
    const { page, until, shot, check, expect } = stage
    // another host of the same computer, and what it answers may not be read
    expect(/external request: .*-files-1\./)
    expect(/404|ERR_BLOCKED_BY_ORB/)
    const here = mark()
    await visit(stage, `api/v1/files/stat/${here}`)
    await visit(stage, `api/v1/files/${here}?mkdir=`, { method: 'POST', data: 'abc' })
    await visit(stage, `api/v1/files/${here}`, { method: 'DELETE' })
    await enter(stage)
    await row(page, `stat/${here}`).click()
    await page.locator('#again').scrollIntoViewIfNeeded()
    await shot('again')
    await page.locator('#curl').click()
    const command = await page.evaluate(() => navigator.clipboard.readText())
    check(`a command: ${command}`, command.startsWith('curl -i ') && command.includes(`/api/v1/files/stat/${here}`))
    await page.locator('#again').click()
    await until(async () => /Sent\.\s+404 Not Found in/.test(await page.locator('#again-note').innerText()), 'what came of it')
    await page.locator('#close').click()
    await until(async () => (await row(page, `stat/${here}`).count()) === 2, 'a second entry')
    await row(page, 'DELETE').first().click()
    check('a page may not delete', await page.locator('#again').isDisabled())
    check('and says so', (await page.locator('#again-note').innerText()).includes('Use the command'))
    await page.locator('#close').click()
    await row(page, 'POST').first().click()
    check('the body is not kept', (await page.locator('.losses').innerText()).includes('not kept'))
  },

  'a pause misses nothing, a lost line comes back': async (stage) => {
    const { page, until, shot, check, expect } = stage
    expect(/ERR_FAILED|ERR_INTERNET_DISCONNECTED|Failed to load resource/)
    const here = mark()
    await enter(stage)
    await page.locator('#live').click()
    await page.waitForSelector('#live[data-state=paused]')
    await visit(stage, `api/v1/files/stat/${here}-paused`)
    await page.waitForTimeout(400)
    check('nothing comes meanwhile', (await row(page, `${here}-paused`).count()) === 0)
    await page.locator('#live').click()
    await row(page, `${here}-paused`).waitFor()
    // the stream that is open now ends with the next pause; the one after it is not let through
    await page.route(/_logs\/stream/, (/** @type {import('playwright-core').Route} */ route) => route.abort())
    await page.locator('#live').click()
    await page.locator('#live').click()
    await page.waitForSelector('#away')
    await shot('away')
    await visit(stage, `api/v1/files/stat/${here}-away`)
    await page.unroute(/_logs\/stream/)
    await row(page, `${here}-away`).waitFor()
    await until(async () => (await page.locator('#away').count()) === 0, 'the line is back')
  },

  'the log is cleared': async (stage) => {
    const { page, until, shot } = stage
    const here = mark()
    await visit(stage, `api/v1/files/stat/${here}`)
    await enter(stage)
    await row(page, here).waitFor()
    await page.locator('#more').click()
    await page.getByRole('menuitem', { name: 'Clear the log' }).click()
    await shot('clear')
    await page.getByRole('button', { name: 'Clear the log', exact: true }).click()
    await until(async () => (await row(page, here).count()) === 0, 'it is gone')
    await row(page, 'the log was cleared').waitFor()
  },

  'many requests are drawn in part, older ones on the way down': async (stage) => {
    const { page, until, check, phone } = stage
    const here = mark()
    const all = 450
    for (let n = 0; n < all; n += 25) await Promise.all(Array.from({ length: 25 }, (_, k) => visit(stage, `api/v1/files/stat/${here}-${n + k}-`)))
    await enter(stage, `#q=${here}`)
    const list = page.locator('#rows')
    await row(page, here).first().waitFor()
    check('not all are drawn', (await page.locator('.rows .row').count()) < 80)
    const height = () => list.evaluate((/** @type {HTMLElement} */ rows) => rows.scrollHeight)
    await until(
      async () => {
        await list.evaluate((/** @type {HTMLElement} */ rows) => (rows.scrollTop = rows.scrollHeight))
        return (await height()) > all * (phone ? 56 : 32)
      },
      'all of them in the end',
      20_000,
    )
    // what is read stays where it is
    await list.evaluate((/** @type {HTMLElement} */ rows) => (rows.scrollTop = 3200))
    await page.waitForTimeout(150)
    const middle = async () => page.evaluate(() => document.elementFromPoint(innerWidth / 3, innerHeight / 2)?.closest('.row')?.id)
    const before = await middle()
    await visit(stage, `api/v1/files/stat/${here}-late`)
    await until(async () => (await height()) > (all + 1) * (phone ? 56 : 32), 'the late one')
    await page.waitForTimeout(150)
    check(`${before} is still in the middle`, (await middle()) === before)
  },
}
