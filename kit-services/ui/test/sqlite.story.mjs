// On a real kit: there is no stand-in for a database.
//   node test/kit.mjs --kitd target/debug/kitd --service sqlite        prints URL
//   npm run e2e -- --only sqlite --url sqlite=URL

/** Whether these stories need a real kit. */
export const real = true

/** @typedef {any} Stage */

/** @param {Stage} stage @param {string} sql */
async function run({ page }, sql) {
  await page.locator('#sql').fill(sql)
  await page.locator('#sql').press('Control+Enter')
}

/** @param {Stage} stage @param {string} name */
async function make({ page }, name) {
  await page.waitForSelector('#none, #databases')
  if (await page.locator('#databases').isVisible()) {
    await page.locator('#databases').click()
    await page.getByRole('menuitem', { name: 'Make a database' }).click()
  } else await page.getByRole('button', { name: 'Make a database' }).click()
  await page.getByLabel('Name').fill(name)
  await page.getByRole('button', { name: 'Make', exact: true }).click()
  await page.waitForFunction((/** @type {string} */ wanted) => document.getElementById('databases')?.textContent?.includes(wanted), name)
}

/** @type {Record<string, (stage: Stage) => Promise<void>>} */
export const stories = {
  'a database is made, filled and looked at': async (stage) => {
    const { page, url, until, shot, check, phone, expect } = stage
    const name = `story${Date.now().toString(36)}${phone ? 'p' : 'd'}`
    await page.goto(url)
    await page.waitForSelector('#none, #databases')
    if (await page.locator('#none').isVisible()) await shot('none')
    await make(stage, name)
    await page.waitForSelector('#idle')
    await run(
      stage,
      "CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT NOT NULL, born REAL, photo BLOB, big INTEGER);\nINSERT INTO people (name, born, photo, big) VALUES ('Ada', 1815.94, x'89504e47', 9007199254740993), ('Grace; Hopper', 1906, NULL, -1);\nSELECT * FROM people",
    )
    await page.waitForSelector('.grid tbody tr')
    const text = await page.locator('.grid').innerText()
    check(`every digit is there: ${text}`, text.includes('9007199254740993') && text.includes('blob, 4 bytes') && text.includes('1906.0') && text.includes('NULL'))
    check('how many', (await page.locator('#note').innerText()).startsWith('2 rows · 2 rows changed'))
    await shot('rows')
    if (phone) await page.locator('#open-tables').click()
    await page.locator('.table-name', { hasText: 'people' }).waitFor()
    await page.locator('.table > summary').first().click({ position: { x: 12, y: 12 } })
    await page.locator('.table li', { hasText: 'photo' }).waitFor()
    await shot('tables')
    await page.locator('.table-name', { hasText: 'people' }).click()
    await until(async () => (await page.locator('#sql').inputValue()) === 'SELECT * FROM "people" LIMIT 100', 'the query of the table')
    await page.waitForSelector('.grid tbody tr')

    expect(/status of 40\d/)
    await run(stage, 'SELECT absent FROM people')
    await page.waitForSelector('#failure')
    check('why', (await page.locator('#failure').innerText()).includes('o such column: absent'))
    await shot('failure')
    await run(stage, "INSERT INTO people (name) VALUES ('lost'); INSERT INTO people (id, name) VALUES (1, 'twice')")
    await page.waitForSelector('#failure')
    await run(stage, 'SELECT count(*) AS n FROM people')
    await page.waitForSelector('.grid tbody tr')
    check('all or nothing', (await page.locator('.grid td.integer').innerText()) === '2')

    await page.locator('#past').click()
    await page.locator('.past-one').first().waitFor()
    check('no values', !(await page.locator('.past').innerText()).includes('Grace'))
    await shot('past')
    await page.locator('#past').click()
    await run(stage, 'WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n')
    await page.locator('#stop').click()
    await page.waitForSelector('#failure')
    check('stopped', (await page.locator('#failure').innerText()).includes('Stopped'))

    // the address is the view
    await run(stage, 'SELECT name FROM people ORDER BY id')
    await page.waitForSelector('.grid tbody tr')
    await page.reload()
    await until(async () => (await page.locator('#sql').inputValue()) === 'SELECT name FROM people ORDER BY id', 'the same query')
    await page.locator('#run').click()
    await page.waitForSelector('.grid tbody tr')
    await page.locator('#share').click()
    const link = await page.evaluate(() => navigator.clipboard.readText())
    const shared = await (await fetch(link)).json()
    check('what the link gives', shared.resultSet[0].name === 'Ada')

    await page.locator('#more').click()
    await page.getByRole('menuitem', { name: 'Look for damage' }).click()
    await page.getByText('No damage was found.').waitFor()
    await page.locator('#more').click()
    await page.getByRole('menuitem', { name: 'Remove this database' }).click()
    await page.getByRole('button', { name: 'Remove', exact: true }).click()
    await until(async () => !(await page.content()).includes(name + '.db<'), 'it is gone')
  },
}
