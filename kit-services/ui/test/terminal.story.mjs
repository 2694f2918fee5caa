/** @typedef {any} Stage */

/** What is on the screen. @param {import('playwright-core').Page} page */
const screen = (page) => page.locator('.xterm-rows').innerText()

/** @param {string} text @param {string} part */
const times = (text, part) => text.split(part).length - 1

/** Sessions of their own, so that a real computer's are left alone. */
let next = 31_000 + Math.floor(Math.random() * 8000)

/** @param {Stage} stage @param {string} [more] */
async function enter({ page, url, until }, more = '') {
  const id = String(next++)
  await page.goto(`${url}?terminal_id=${id}&renderer=dom${more}`)
  await page.waitForSelector('#status[data-state=open]')
  await until(async () => /[$#%>]\s*$/.test((await screen(page)).trimEnd()), 'a prompt')
  await page.locator('.screen').click()
  return id
}

/** @param {Stage} stage @param {string} id */
async function leave({ page }, id) {
  await page.evaluate((/** @type {string} */ id) => fetch(`api/v1/terminal/${id}`, { method: 'DELETE' }), id)
}

/** @type {Record<string, (stage: Stage) => Promise<void>>} */
export const stories = {
  'a command answers, the shell knows its size': async (stage) => {
    const { page, until, shot, check } = stage
    const id = await enter(stage)
    await page.keyboard.type('echo answer-$((6*7)); stty size\n')
    await until(async () => (await screen(page)).includes('answer-42'), 'the answer')
    /** @type {RegExpExecArray | null} */
    let before = null
    await until(async () => (before = /^\s*(\d+) (\d+)\s/.exec((await screen(page)).split('answer-42').at(-1) ?? '')), 'stty tells rows and columns')
    await shot('command')
    const size = page.viewportSize()
    await page.setViewportSize({ width: size.width, height: Math.round(size.height * 0.6) })
    await page.waitForTimeout(300)
    await page.keyboard.type('clear; echo now; stty size\n')
    await until(async () => {
      const after = /now\s+(\d+) (\d+)/.exec(await screen(page))
      return after && Number(after[1]) < Number(before?.at(1)) && after[2] === before?.at(2)
    }, 'fewer rows after the window shrank')
    check('the title names the session', (await page.title()).includes(`Terminal ${id}`))
    await leave(stage, id)
  },

  'a lost line says so, comes back, and repeats nothing': async (stage) => {
    const { page, until, shot, check } = stage
    /** @type {import('playwright-core').WebSocketRoute[]} */
    const lines = []
    let down = false
    await page.routeWebSocket(/terminal\/ws/, (/** @type {import('playwright-core').WebSocketRoute} */ line) => {
      if (down) return void line.close({ code: 1011, reason: 'down' })
      const server = line.connectToServer()
      lines.push(line)
      line.onMessage((message) => server.send(message))
      server.onMessage((message) => line.send(message))
    })
    const id = await enter(stage)
    await page.keyboard.type('echo mark-$((1000+1))\n')
    await until(async () => (await screen(page)).includes('mark-1001'), 'the mark')
    down = true
    await lines.at(-1)?.close({ code: 1011, reason: 'gone' })
    await page.waitForSelector('#status[data-state=waiting]')
    await page.waitForSelector('#reconnect')
    await shot('lost')
    down = false
    // it comes back by itself, too, and may be quicker than the press
    await page.click('#reconnect', { timeout: 1000 }).catch(() => undefined)
    await page.waitForSelector('#status[data-state=open]', { timeout: 20_000 })
    await page.locator('.screen').click()
    await page.keyboard.type('echo again-$((2000+2))\n')
    await until(async () => (await screen(page)).includes('again-2002'), 'the shell after the return')
    const text = await screen(page)
    check(`the old output once:\n${text}`, times(text, 'mark-1001') === 1)
    check('no answers of the terminal in the shell', !/\[\?\d|\d;\d+c/.test(text))
    await leave(stage, id)
  },

  'sessions: a new one, the way back, closing': async (stage) => {
    const { page, until, shot } = stage
    const id = await enter(stage)
    await page.keyboard.type('echo first-$((3+4))\n')
    await until(async () => (await screen(page)).includes('first-7'), 'the first session')
    await page.click('#new-session')
    await until(() => !page.url().includes(`terminal_id=${id}`), 'another address')
    await page.waitForSelector('#status[data-state=open]')
    await until(async () => !(await screen(page)).includes('first-7'), 'an empty screen')
    const other = new URL(page.url()).searchParams.get('terminal_id') ?? ''
    await page.click('#switcher')
    await page.getByRole('menuitemradio', { name: new RegExp(`^${id} `) }).waitFor()
    await shot('switcher')
    await page.getByRole('menuitemradio', { name: new RegExp(`^${id} `) }).click()
    await until(async () => (await screen(page)).includes('first-7'), 'the first session again')
    await page.goBack()
    await until(async () => page.url().includes(`terminal_id=${other}`) && !(await screen(page)).includes('first-7'), 'the second by going back')
    await page.click('#more')
    await page.getByRole('menuitem', { name: `Close session ${other}` }).click()
    await page.getByRole('button', { name: 'Close session', exact: true }).click()
    await until(async () => !(await page.evaluate(() => fetch('api/v1/terminal/sessions').then((reply) => reply.text()))).includes(`"${other}"`), 'the session is gone')
    await until(() => !page.url().includes(`terminal_id=${other}`), 'another session is shown')
    await leave(stage, id)
  },

  'the end of a shell is told, and it can be started again': async (stage) => {
    const { page, until, shot } = stage
    const id = await enter(stage)
    await page.keyboard.type('exit\n')
    await page.waitForSelector('#status[data-state=ended]')
    await shot('ended')
    await page.click('#restart')
    await page.waitForSelector('#status[data-state=open]')
    await page.locator('.screen').click()
    await page.keyboard.type('echo back-$((5*5))\n')
    await until(async () => (await screen(page)).includes('back-25'), 'a new shell')
    await leave(stage, id)
  },

  'what cannot be had is said': async ({ page, url, until, shot, expect }) => {
    expect(/400|WebSocket/)
    await page.goto(`${url}?terminal_id=${next++}&shell=/bin/no-such-shell`)
    await page.waitForSelector('#status[data-state=refused]')
    await until(async () => (await page.locator('.line').innerText()).includes('no-such-shell'), 'the reason')
    await shot('refused')
  },

  'looking on: nothing typed arrives': async (stage) => {
    const { page, url, check } = stage
    const id = await enter(stage)
    await page.goto(`${url}?terminal_id=${id}&renderer=dom&readonly=true`)
    await page.waitForSelector('#status[data-state=open]')
    await page.waitForSelector('#readonly')
    await page.locator('.screen').click()
    await page.keyboard.type('echo never-$((1+1))\n')
    await page.waitForTimeout(400)
    check('nothing arrived', !(await screen(page)).includes('never'))
    await page.keyboard.press('Control+F6')
    check('the keyboard leaves the terminal', await page.evaluate(() => document.activeElement?.id === 'switcher'))
    await leave(stage, id)
  },

  'output faster than the screen, then an interrupt': async (stage) => {
    const { page, until, check } = stage
    const id = await enter(stage)
    await page.keyboard.type('seq 1 60000; echo done-$((8*8))\n')
    await until(async () => (await screen(page)).includes('done-64'), 'all of it', 20_000)
    const text = await screen(page)
    check('the last lines are in order', text.includes('59999') && text.includes('60000'))
    await page.keyboard.type('sleep 60\n')
    await page.waitForTimeout(300)
    await page.keyboard.press('Control+c')
    await page.keyboard.type('echo free-$((9*9))\n')
    await until(async () => (await screen(page)).includes('free-81'), 'the prompt after the interrupt')
    await leave(stage, id)
  },

  'find, copy, larger text': async (stage) => {
    const { page, until, shot, check, phone } = stage
    const id = await enter(stage)
    await page.keyboard.type('echo needle-$((7*7))\n')
    await until(async () => (await screen(page)).includes('needle-49'), 'the needle')
    await page.click('#more')
    await shot('menu')
    await page.getByRole('menuitem', { name: 'Find' }).click()
    await page.locator('.find input').fill('needle-49')
    await until(async () => (await page.locator('.find input').getAttribute('aria-invalid')) === 'false', 'found')
    await shot('find')
    await page.keyboard.press('Escape')
    await page.locator('.screen').click()
    const size = () => page.locator('.xterm-rows').evaluate((/** @type {HTMLElement} */ rows) => parseFloat(getComputedStyle(rows).fontSize))
    const before = await size()
    await page.click('#more')
    await page.getByRole('menuitem', { name: 'Larger text' }).click()
    await until(async () => (await size()) > before, 'larger text')
    if (!phone) {
      await page.click('#more')
      await page.getByRole('menuitem', { name: 'Select all' }).click()
      await page.keyboard.press('Control+Shift+C')
      await until(async () => (await page.evaluate(() => navigator.clipboard.readText())).includes('needle-49'), 'the clipboard')
    }
    check('no question left on the page', (await page.locator('dialog').count()) === 0)
    await leave(stage, id)
  },

  'files are dropped, and picked on a phone': async (stage) => {
    const { page, until, shot, check, phone } = stage
    const id = await enter(stage)
    await page.keyboard.type('cat ')
    if (phone) {
      await page.click('#more')
      const chooser = page.waitForEvent('filechooser')
      await page.getByRole('menuitem', { name: 'Send files' }).click()
      await (await chooser).setFiles([{ name: 'a note.txt', mimeType: 'text/plain', buffer: Buffer.from('dropped-by-hand\n') }])
    } else {
      const drag = async (/** @type {string} */ type) =>
        page.evaluate((/** @type {string} */ type) => {
          const data = new DataTransfer()
          data.items.add(new File(['dropped-by-hand\n'], 'a note.txt'))
          document.querySelector('.stage')?.dispatchEvent(new DragEvent(type, { dataTransfer: data, bubbles: true, cancelable: true, clientX: 200, clientY: 200 }))
        }, type)
      await drag('dragover')
      await page.waitForSelector('.drop-note')
      await shot('over')
      await drag('drop')
      await until(async () => (await page.locator('.drop-note').count()) === 0, 'the note goes')
    }
    await until(async () => /a note\.txt'\s*$/.test((await screen(page)).replace(/\n/g, '').trimEnd()), 'the path on the command line')
    await shot('typed')
    await page.locator('.screen').click()
    await page.keyboard.press('Enter')
    await until(async () => /^dropped-by-hand/m.test(await screen(page)), 'the content of the file')
    check('the notice says so', (await page.locator('.toast').allInnerTexts()).join().includes('1 file given'))
    await leave(stage, id)
  },

  'the keys of a phone': async (stage) => {
    const { page, until, shot, check, phone } = stage
    const id = await enter(stage)
    if (!phone) {
      check('no key bar at a desk', (await page.locator('.keybar').count()) === 0)
      return leave(stage, id)
    }
    await page.keyboard.type('sleep 60\n')
    await page.waitForTimeout(300)
    await page.locator('.key', { hasText: 'Ctrl' }).tap()
    await shot('keybar')
    await page.keyboard.type('c')
    await page.keyboard.type('echo phone-$((3*3))\n')
    await until(async () => (await screen(page)).includes('phone-9'), 'Ctrl C by key bar')
    await page.keyboard.type('seq 1 300\n')
    await until(async () => (await screen(page)).includes('300'), 'the end of the list')
    await page.locator('.key[aria-label=Up]').tap()
    await until(async () => (await screen(page)).trimEnd().endsWith('seq 1 300'), 'the last command by the arrow')
    // a finger scrolls
    const touch = await page.context().newCDPSession(page)
    await touch.send('Input.dispatchTouchEvent', { type: 'touchStart', touchPoints: [{ x: 180, y: 200 }] })
    for (let y = 220; y <= 600; y += 20) await touch.send('Input.dispatchTouchEvent', { type: 'touchMove', touchPoints: [{ x: 180, y }] })
    await touch.send('Input.dispatchTouchEvent', { type: 'touchEnd', touchPoints: [] })
    await until(async () => !(await screen(page)).includes('300'), 'older output under the finger')
    await leave(stage, id)
  },
}
