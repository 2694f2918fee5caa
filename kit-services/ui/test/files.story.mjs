/** @typedef {any} Stage */

/** @param {Stage} stage A folder of its own, so that a real computer's files are left alone. */
async function enter({ page, url }) {
  const name = `ui-story-${Date.now().toString(36)}${Math.floor(Math.random() * 1e6).toString(36)}`
  const path = `/tmp/${name}`
  await page.goto(`${url}#/tmp/`)
  await page.waitForSelector('#rows[aria-busy=false]')
  const status = await page.evaluate((/** @type {string} */ path) => fetch(`api/v1/files${path}?mkdir=`, { method: 'POST' }).then((reply) => reply.status), path)
  if (status >= 300) throw new Error(`mkdir answered ${status}`)
  await page.goto(`${url}#${path}/`)
  await page.locator('.trail [aria-current]', { hasText: name }).waitFor()
  await page.waitForSelector('#rows[aria-busy=false]')
  return path
}

/** @param {Stage} stage @param {string} path */
async function leave({ page }, path) {
  await page.evaluate((/** @type {string} */ path) => fetch(`api/v1/files${path}`, { method: 'DELETE' }), path)
}

/** @param {import('playwright-core').Page} page @param {string} path @param {string} text */
async function put(page, path, text) {
  await page.evaluate(([path, text]) => fetch(`api/v1/files${path}`, { method: 'PUT', body: text }).then((reply) => reply.text()), /** @type {[string, string]} */ ([path, text]))
}

/** @param {import('playwright-core').Page} page @param {string} path @returns {Promise<string>} */
const get = (page, path) => page.evaluate((path) => fetch(`api/v1/files${path}`, { cache: 'no-store' }).then((reply) => reply.text()), path)

/** @param {import('playwright-core').Page} page @param {string} name */
const row = (page, name) => page.locator(`.row[data-name="${name}"]`)

/** @param {Stage} stage @param {string} name */
const open = async ({ page, phone }, name) => (phone ? row(page, name).tap() : row(page, name).dblclick())

/** The menu of a row. @param {Stage} stage @param {string} name @param {string | RegExp} entry */
async function act({ page, phone }, name, entry) {
  if (phone) await row(page, name).locator('.row-button').tap()
  else await row(page, name).click({ button: 'right' })
  await page.getByRole('menuitem', { name: entry }).click()
}

/** @param {Stage} stage @param {{ name: string, text: string | Buffer }[]} files */
async function upload({ page }, files) {
  const [chooser] = await Promise.all([page.waitForEvent('filechooser'), page.click('#upload')])
  await chooser.setFiles(files.map(({ name, text }) => ({ name, mimeType: 'application/octet-stream', buffer: Buffer.from(text) })))
}

/** @type {Record<string, (stage: Stage) => Promise<void>>} */
export const stories = {
  'folders, uploads, renaming, deleting': async (stage) => {
    const { page, until, shot, check } = stage
    const path = await enter(stage)
    await shot('empty')
    await page.click('#new-folder')
    await page.locator('dialog input').fill('a/b')
    check('a slash is refused', (await page.locator('.fault').innerText()).includes('slash'))
    await page.locator('dialog input').fill('inbox')
    await page.keyboard.press('Enter')
    await row(page, 'inbox').waitFor()
    await page.keyboard.press('Escape')

    if ((await page.locator('#unchoose').count()) > 0) await page.click('#unchoose')
    const odd = 'odd & #1? 100% ünï.txt'
    await upload(stage, [
      { name: 'one.txt', text: 'one\n' },
      { name: odd, text: 'odd\n' },
      { name: 'big.bin', text: Buffer.alloc(12 << 20, 7) },
    ])
    await row(page, 'big.bin').waitFor()
    await until(async () => (await page.locator('#uploads').getAttribute('data-running')) === 'false', 'uploads done')
    await shot('uploaded')
    await page.click('#uploads-close')
    check('the bytes arrived', (await get(page, `${path}/${encodeURIComponent(odd)}`)) === 'odd\n')
    check('all of them', await page.evaluate((/** @type {string} */ path) => fetch(`api/v1/files${path}`).then(async (reply) => (await reply.blob()).size), `${path}/big.bin`) === 12 << 20)

    await upload(stage, [{ name: 'one.txt', text: 'another\n' }])
    await page.getByRole('button', { name: 'Keep both' }).click()
    await row(page, 'one (2).txt').waitFor()
    await page.click('#uploads-close')
    check('the first is untouched', (await get(page, `${path}/one.txt`)) === 'one\n')

    await act(stage, 'one.txt', /^Rename/)
    await until(() => page.evaluate(() => getSelection()?.toString() === 'one'), 'the stem is selected')
    await page.locator('dialog input').fill('two.txt')
    await page.keyboard.press('Enter')
    await row(page, 'two.txt').waitFor()
    check('the old name is gone', (await row(page, 'one.txt').count()) === 0)

    await act(stage, 'two.txt', /^Move to/)
    await page.locator('dialog .menu-item', { hasText: 'inbox' }).click()
    await until(async () => (await page.locator('dialog input').inputValue()) === `${path}/inbox`, 'the folder in the picker')
    await shot('picker')
    await page.getByRole('button', { name: 'Move here' }).click()
    await row(page, 'two.txt').waitFor({ state: 'detached' })
    check('it moved', (await get(page, `${path}/inbox/two.txt`)) === 'one\n')

    await act(stage, odd, /^Delete/)
    await shot('delete')
    await page.getByRole('button', { name: 'Delete', exact: true }).last().click()
    await row(page, odd).waitFor({ state: 'detached' })

    await open(stage, 'inbox')
    await row(page, 'two.txt').waitFor()
    check('the address follows', page.url().endsWith(`${path}/inbox/`))
    await page.goBack()
    await row(page, 'inbox').waitFor()
    await leave(stage, path)
  },

  'looking and editing, and what somebody else wrote meanwhile': async (stage) => {
    const { page, until, shot, check, expect } = stage
    const path = await enter(stage)
    await put(page, `${path}/note.md`, '# Note\r\n\r\nkeep these endings\r\n')
    await put(page, `${path}/script.sh`, '#!/bin/sh\necho hi # comment\n')
    await put(page, `${path}/data.bin`, 'a\0b')
    await page.click('#reload')
    await open(stage, 'note.md')
    await page.locator('.cm-content').waitFor()
    check('the address names the file', page.url().endsWith(`${path}/note.md`))
    await page.click('#edit')
    await page.keyboard.press('Control+End')
    await page.keyboard.type('more')
    await shot('edit')
    await page.keyboard.press('Control+s')
    await until(async () => (await get(page, `${path}/note.md`)) === '# Note\r\n\r\nkeep these endings\r\nmore', 'saved with its line endings')
    await page.keyboard.type(' still')
    await page.click('#save')
    await until(async () => (await get(page, `${path}/note.md`)).endsWith('more still'), 'saved twice')

    await put(page, `${path}/note.md`, 'somebody else\n')
    await page.locator('.cm-content').click()
    await page.keyboard.type('mine ')
    expect(/412/)
    await page.click('#save')
    await page.getByText('was changed meanwhile').waitFor()
    check('theirs is still there', (await get(page, `${path}/note.md`)) === 'somebody else\n')
    await shot('conflict')
    await page.getByRole('button', { name: 'Read again' }).click()
    await until(async () => (await page.locator('.cm-content').innerText()).includes('somebody else'), 'theirs is shown')

    await page.click('#edit')
    await page.keyboard.type('unsaved')
    await page.goBack()
    await page.getByText('without saving').waitFor()
    await page.getByRole('button', { name: 'Cancel' }).click()
    check('still here', (await page.locator('.cm-content').innerText()).includes('unsaved'))
    await page.click(stage.phone ? '.pane-back' : '#pane-close')
    await page.getByRole('button', { name: 'Leave' }).click()
    await page.locator('.pane').waitFor({ state: 'detached' })

    await open(stage, 'data.bin')
    await page.getByText('No preview').waitFor()
    await leave(stage, path)
  },

  'pictures, sound, and a page that must not run': async (stage) => {
    const { page, shot, check, until } = stage
    const path = await enter(stage)
    const svg = '<svg xmlns="http://www.w3.org/2000/svg" width="40" height="30"><script>parent.bad=1</script><rect width="40" height="30" fill="teal"/></svg>'
    await put(page, `${path}/a.svg`, svg)
    await put(page, `${path}/evil.html`, '<script>parent.bad=1;document.title="bad"</script>')
    await put(page, `${path}/broken.png`, 'no picture')
    await put(page, `${path}/evil.pdf`, '<script>parent.bad=1</script>')
    await page.click('#reload')
    const see = async (/** @type {string} */ name) => {
      await page.goto(`${stage.url}#${path}/${name}`)
      await page.locator('.pane-name', { hasText: name }).waitFor()
    }
    await see('a.svg')
    await page.locator('figcaption', { hasText: '40 × 30' }).waitFor()
    await shot('picture')
    await see('broken.png')
    await page.getByText('No preview').waitFor()
    await see('evil.html')
    await until(async () => (await page.locator('.cm-content').innerText()).includes('<script>'), 'its source')
    await see('evil.pdf')
    await page.waitForTimeout(500)
    check('nothing ran', await page.evaluate(() => !('bad' in window)))
    await leave(stage, path)
  },

  'by keyboard alone': async (stage) => {
    const { page, check, until, phone } = stage
    if (phone) return
    const path = await enter(stage)
    for (const name of ['alpha.txt', 'beta.txt', 'gamma.txt']) await put(page, `${path}/${name}`, name)
    await page.evaluate((/** @type {string} */ path) => fetch(`api/v1/files${path}/dir?mkdir=`, { method: 'POST' }), path)
    await page.click('#reload')
    await row(page, 'gamma.txt').waitFor()
    await page.locator('#rows').focus()
    const selected = () => page.locator('.row[aria-selected=true]').evaluateAll((/** @type {HTMLElement[]} */ rows) => rows.map((one) => one.dataset['name']))
    await page.keyboard.press('ArrowDown')
    check('the first', (await selected()).join() === 'dir')
    await page.keyboard.press('End')
    await page.keyboard.press('Shift+ArrowUp')
    check('two at the end', (await selected()).join() === 'beta.txt,gamma.txt')
    await page.keyboard.press('Control+c')
    await page.keyboard.press('Home')
    await page.keyboard.press('Enter')
    await until(() => page.url().endsWith('/dir/'), 'inside')
    await page.waitForSelector('#rows[aria-busy=false]')
    await page.keyboard.press('Control+v')
    await row(page, 'gamma.txt').waitFor()
    check('copied', (await get(page, `${path}/dir/beta.txt`)) === 'beta.txt')
    await page.keyboard.press('Backspace')
    await until(() => page.url().endsWith(`${path}/`), 'up again')
    await row(page, 'dir').waitFor()
    await until(async () => (await selected()).join() === 'dir', 'where we came from is selected')
    await page.keyboard.type('al')
    check('type to find', (await selected()).join() === 'alpha.txt')
    await page.keyboard.press('F2')
    await page.locator('dialog input').fill('omega.txt')
    await page.keyboard.press('Enter')
    await row(page, 'omega.txt').waitFor()
    await until(async () => page.evaluate(() => document.activeElement?.id === 'rows'), 'the list has the keyboard again')
    await page.keyboard.press('Delete')
    await page.keyboard.press('Enter')
    await row(page, 'omega.txt').waitFor({ state: 'detached' })
    await page.keyboard.press('/')
    await page.keyboard.type('bet')
    await until(async () => (await page.locator('.row').count()) === 1, 'the filter')
    await page.keyboard.press('Escape')
    await until(async () => (await page.locator('.row').count()) === 3, 'no filter')
    await page.keyboard.press('Control+a')
    check('everything', (await selected()).length === 3)
    await leave(stage, path)
  },

  'many files, hidden files, sorting': async (stage) => {
    const { page, check, until, shot } = stage
    const path = await enter(stage)
    await page.evaluate(async (/** @type {string} */ path) => {
      const names = [...Array(1500).keys()].map((n) => `file-${n}.txt`)
      names.push('.hidden')
      const worker = async () => {
        for (let name = names.pop(); name; name = names.pop()) await fetch(`api/v1/files${path}/${name}`, { method: 'PUT', body: name }).then((reply) => reply.text())
      }
      await Promise.all([worker(), worker(), worker(), worker(), worker(), worker()])
    }, path)
    await page.click('#reload')
    await until(async () => (await page.locator('.foot').innerText()).includes('1,500 files'), 'all of them', 15_000)
    check('few rows exist', (await page.locator('.row').count()) < 80)
    await shot('many')
    await page.locator('#rows').focus()
    await page.keyboard.press('End')
    await row(page, 'file-1499.txt').waitFor()
    await page.click('.foot-link')
    await until(async () => (await page.locator('.foot').innerText()).includes('1,501 files'), 'the hidden one too')
    await page.click('#more')
    await page.getByRole('menuitemradio', { name: 'Size' }).click()
    await row(page, 'file-1000.txt').waitFor()
    const first = await page.locator('.row').first().getAttribute('data-name')
    check(`largest first: ${first}`, first === 'file-1000.txt')
    await leave(stage, path)
  },

  'a computer that goes away and comes back': async (stage) => {
    const { page, context, until, shot, check, expect } = stage
    const path = await enter(stage)
    await put(page, `${path}/there.txt`, 'x')
    await page.click('#reload')
    await row(page, 'there.txt').waitFor()
    expect(/ERR_INTERNET_DISCONNECTED/)
    await context.setOffline(true)
    await page.click('#reload')
    await page.waitForSelector('#away')
    check('what was known is still shown', (await row(page, 'there.txt').count()) === 1)
    await shot('away')
    await context.setOffline(false)
    await until(async () => (await page.locator('#away').count()) === 0, 'it comes back by itself', 20_000)
    expect(/404/)
    await page.goto(`${stage.url}#${path}/nowhere/`)
    await page.waitForSelector('#failed')
    await shot('nowhere')
    await leave(stage, path)
  },

  'at the address of a folder': async (stage) => {
    const { page, until, expect } = stage
    const path = await enter(stage)
    await put(page, `${path}/a.txt`, 'x')
    // the name from the page's own place leads nowhere here, the one from the root does
    expect(/404/)
    await page.goto(`${stage.url.replace(/\/$/, '')}${path}/`)
    await row(page, 'a.txt').waitFor()
    await until(() => new URL(page.url()).pathname === '/', 'the address of the page')
    await leave(stage, path)
  },

  'in a small frame': async (stage) => {
    const { page, check } = stage
    const path = await enter(stage)
    await put(page, `${path}/a.txt`, 'x')
    await page.click('#reload')
    await page.setViewportSize({ width: 280, height: 320 })
    await row(page, 'a.txt').waitFor()
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth)
    check('nothing sticks out', wide <= 0)
    await leave(stage, path)
  },
}
