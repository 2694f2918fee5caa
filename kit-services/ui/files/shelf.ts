// The open folder: what is in it, what is chosen, and what is done with it.
import { batch, computed, effect, signal } from '@preact/signals'
import { delay } from '../shared/backoff.ts'
import { Refused, because, passing, words } from '../shared/call.ts'
import { agree, ask, request } from '../shared/dialog.tsx'
import { count } from '../shared/format.ts'
import type { Found } from '../shared/found.ts'
import { placeOf, sibling } from '../shared/place.ts'
import { ROOT, below } from '../shared/root.ts'
import { recall, remember } from '../shared/theme.ts'
import { complain, tell } from '../shared/toast.tsx'
import { filtered, hidden, ordered, type By, type Item, type Order } from './listing.ts'
import { base, clean, contentsUrl, freeName, fromHash, hashOf, join, parent, split, within, wrongName } from './paths.ts'
import { chooseFolder } from './picker.tsx'
import * as service from './service.ts'
import { arrived, put, running } from './uploads.ts'

const HOME = '/home/user'
const HIDDEN_KEY = 'hoody.files.hidden'
const ORDER_KEY = 'hoody.files.order'
/** Coming back to the page after this long reads the folder again. */
const STALE_MS = 4000
/** Changes sent at once. */
const AT_ONCE = 4
/** Scroll positions kept for going back. */
const REMEMBERED = 50

export type Status = { is: 'loading' } | { is: 'ready' } | { is: 'failed'; why: string; status: number | null }

export const dir = signal('/')
export const items = signal<Item[]>([])
export const status = signal<Status>({ is: 'loading' })
/** Nobody answers; what is shown is the last that was known. */
export const away = signal<{ why: string; until: number } | null>(null)
export const busy = signal(false)
export const archives = signal(false)
export const writable = signal(true)
/** The folder has more entries than are shown. */
export const partial = signal(false)

export const showHidden = signal(recall(HIDDEN_KEY) === '1')
export const order = signal<Order>(storedOrder())
export const filter = signal('')

export const selected = signal<ReadonlySet<string>>(new Set())
/** The name the keyboard is at. */
export const cursor = signal<string | null>(null)
export const clip = signal<{ cut: boolean; paths: string[] } | null>(null)
/** The file in the side pane. */
export const shown = signal<string | null>(null)
/** The open file has changes that are not saved. */
export const unsaved = signal(false)

export const rows = computed(() => {
  const visible = showHidden.value ? items.value : items.value.filter((item) => !hidden(item.name))
  return ordered(filtered(visible, filter.value), order.value)
})
export const hiddenCount = computed(() => (showHidden.value ? 0 : items.value.filter((item) => hidden(item.name)).length))
export const chosen = computed(() => rows.value.filter((item) => selected.value.has(item.name)))

const scrolls = new Map<string, number>()
let anchor: string | null = null
let reading: AbortController | null = null
let attempt = 0
let retryTimer: ReturnType<typeof setTimeout> | undefined
let readAt = 0
let leaving = false

function storedOrder(): Order {
  const [by, down] = (recall(ORDER_KEY) ?? '').split(' ')
  return { by: by === 'size' || by === 'at' ? by : 'name', down: down === 'down' }
}

// where we are

export async function open(): Promise<void> {
  addEventListener('hashchange', () => void arrive())
  addEventListener('online', () => void reload())
  const fresh = () => {
    if (!document.hidden && Date.now() - readAt > STALE_MS) void reload()
  }
  document.addEventListener('visibilitychange', fresh)
  addEventListener('focus', fresh)
  addEventListener('beforeunload', (event) => {
    if (running.value || unsaved.value) event.preventDefault()
  })
  arrived.now = (path) => {
    if (parent(path) === dir.value) soonReload()
  }
  effect(() => {
    document.title = shown.value ? `${base(shown.value)} · Files` : `${base(dir.value) || 'Computer'} · Files`
  })
  const own = below(ROOT, new URL(location.href))
  if (own) history.replaceState(null, '', `${ROOT.pathname}${location.search}${location.hash || hashOf(clean(`/${own}`), true)}`)
  await arrive()
}

/** Go where the address says. */
async function arrive(): Promise<void> {
  const wanted = fromHash(location.hash)
  if (!wanted) return start()
  if (!(await mayLeave(wanted.folder ? null : wanted.path))) {
    history.replaceState(null, '', shown.value ? hashOf(shown.value, false) : hashOf(dir.value, true))
    return
  }
  if (wanted.folder || wanted.path === '/') return enter(wanted.path, null)
  // a file, or a folder whose slash is missing
  if (parent(wanted.path) === dir.value && items.value.some((item) => item.path === wanted.path && !item.folder)) {
    cursor.value = base(wanted.path)
    shown.value = wanted.path
    return
  }
  try {
    const facts = await service.stat(wanted.path)
    if (facts.folder) {
      history.replaceState(null, '', hashOf(wanted.path, true))
      return enter(wanted.path, null)
    }
  } catch (error) {
    if (!passing(error)) complain(error instanceof Refused && error.status === 404 ? `${wanted.path} is not there.` : words(error))
    history.replaceState(null, '', hashOf(parent(wanted.path), true))
    return enter(parent(wanted.path), null)
  }
  await enter(parent(wanted.path), wanted.path)
}

/** No address: the user's home where there is one. */
async function start(): Promise<void> {
  const there = await service.exists(HOME).catch(() => false)
  const path = there ? HOME : '/'
  history.replaceState(null, '', hashOf(path, true))
  await enter(path, null)
}

async function enter(path: string, file: string | null): Promise<void> {
  const moved = path !== dir.value || status.value.is !== 'ready'
  batch(() => {
    if (moved) {
      dir.value = path
      items.value = []
      status.value = { is: 'loading' }
      filter.value = ''
      selected.value = new Set()
      cursor.value = null
      anchor = null
    }
    shown.value = file
    unsaved.value = false
    if (file) {
      cursor.value = base(file)
      selected.value = new Set([base(file)])
    }
  })
  await reload()
}

export function go(path: string): void {
  const hash = hashOf(clean(path), true)
  if (location.hash === hash || (location.hash === '' && hash === '#/')) void reload()
  else location.hash = hash
}

export function up(): void {
  if (dir.value === '/') return
  const from = base(dir.value)
  go(parent(dir.value))
  afterReload = () => {
    if (rows.value.some((item) => item.name === from)) choose(from)
  }
}

let afterReload: (() => void) | null = null

/** Read the folder again; what is chosen stays chosen. */
export async function reload(): Promise<void> {
  reading?.abort()
  clearTimeout(retryTimer)
  const mine = new AbortController()
  reading = mine
  const path = dir.value
  busy.value = true
  try {
    const folder = await service.list(path, mine.signal)
    if (mine.signal.aborted) return
    attempt = 0
    readAt = Date.now()
    const names = new Set(folder.items.map((item) => item.name))
    batch(() => {
      items.value = folder.items
      archives.value = folder.archives
      writable.value = folder.writable
      partial.value = folder.partial
      status.value = { is: 'ready' }
      away.value = null
      const still = [...selected.value].filter((name) => names.has(name))
      if (still.length !== selected.value.size) selected.value = new Set(still)
      if (cursor.value && !names.has(cursor.value)) cursor.value = null
      if (shown.value && parent(shown.value) === path && !names.has(base(shown.value)) && !unsaved.value) shown.value = null
    })
    afterReload?.()
    afterReload = null
  } catch (error) {
    if (mine.signal.aborted) return
    if (passing(error)) {
      const wait = error instanceof Refused && error.retryAfter !== null ? error.retryAfter : delay(attempt++, Math.random())
      away.value = { why: words(error), until: Date.now() + wait }
      retryTimer = setTimeout(() => void reload(), wait)
    } else {
      away.value = null
      status.value = { is: 'failed', why: words(error), status: error instanceof Refused ? error.status : null }
      items.value = []
    }
  } finally {
    if (reading === mine) busy.value = false
  }
}

let soon: ReturnType<typeof setTimeout> | undefined
function soonReload(): void {
  clearTimeout(soon)
  soon = setTimeout(() => void reload(), 250)
}

export function keepScroll(at: number): void {
  scrolls.delete(dir.value)
  scrolls.set(dir.value, at)
  const oldest = scrolls.keys().next()
  if (scrolls.size > REMEMBERED && !oldest.done) scrolls.delete(oldest.value)
}

export function keptScroll(): number {
  return scrolls.get(dir.value) ?? 0
}

// choosing

export function choose(name: string, how: 'only' | 'toggle' | 'range' = 'only'): void {
  batch(() => {
    cursor.value = name
    if (how === 'toggle') {
      const next = new Set(selected.value)
      if (!next.delete(name)) next.add(name)
      selected.value = next
      anchor = name
    } else if (how === 'range' && anchor) {
      const list = rows.value.map((item) => item.name)
      const [from, to] = [list.indexOf(anchor), list.indexOf(name)].sort((a, b) => a - b) as [number, number]
      selected.value = from < 0 ? new Set([name]) : new Set(list.slice(from, to + 1))
    } else {
      selected.value = new Set([name])
      anchor = name
    }
  })
}

export function chooseAll(): void {
  selected.value = new Set(rows.value.map((item) => item.name))
}

export function chooseNone(): void {
  selected.value = new Set()
}

export function setOrder(by: By): void {
  const now = order.value
  const next = now.by === by ? { by, down: !now.down } : { by, down: by !== 'name' }
  order.value = next
  remember(ORDER_KEY, `${next.by} ${next.down ? 'down' : 'up'}`)
}

export function setHidden(on: boolean): void {
  showHidden.value = on
  remember(HIDDEN_KEY, on ? '1' : null)
}

// the side pane

export function openItem(item: Item): void {
  if (item.folder) go(item.path)
  else show(item.path)
}

export function show(path: string): void {
  if (shown.value === path) return
  location.hash = hashOf(path, false)
}

export async function hide(): Promise<void> {
  if (!(await mayLeave(null))) return
  shown.value = null
  unsaved.value = false
  history.replaceState(null, '', hashOf(dir.value, true))
}

/** Whether the open file may be left for another. */
export async function mayLeave(to: string | null): Promise<boolean> {
  if (!unsaved.value || !shown.value || shown.value === to) return true
  if (leaving) return false
  leaving = true
  const sure = await agree(`Leave ${base(shown.value)} without saving?`, 'The changes you made to it are lost.', 'Leave', 'danger')
  leaving = false
  if (sure) unsaved.value = false
  return sure
}

// changing

export async function newFolder(): Promise<void> {
  const taken = names()
  const name = await request({ title: 'New folder', label: 'Name', value: freeName('New folder', taken), action: 'Create', check: (value) => nameFault(value, taken) })
  if (name === null) return
  await act(`Could not make ${name}`, async () => {
    await service.makeFolder(join(dir.value, name))
    afterReload = () => choose(name)
  })
}

export async function newFile(): Promise<void> {
  const taken = names()
  const value = freeName('untitled.txt', taken)
  const name = await request({ title: 'New file', label: 'Name', value, select: split(value).stem.length, action: 'Create', check: (text) => nameFault(text, taken) })
  if (name === null) return
  const path = join(dir.value, name)
  await act(`Could not make ${name}`, async () => {
    await service.makeFile(path)
    afterReload = () => {
      choose(name)
      show(path)
    }
  })
}

export async function rename(item: Item): Promise<void> {
  const taken = names()
  taken.delete(item.name)
  const name = await request({
    title: `Rename ${item.folder ? 'folder' : 'file'}`,
    label: 'Name',
    value: item.name,
    select: item.folder ? item.name.length : split(item.name).stem.length,
    action: 'Rename',
    check: (value) => nameFault(value, taken),
  })
  if (name === null || name === item.name) return
  const to = join(dir.value, name)
  await act(`Could not rename ${item.name}`, async () => {
    // the list may be old, and a move replaces what is there
    if ((await service.namesBeside(to)).has(name)) throw new Error(`${name} is already there`)
    await service.move(item.path, to)
    if (shown.value === item.path) show(to)
    afterReload = () => choose(name)
  })
}

export async function removeAll(list: Item[]): Promise<void> {
  const [first] = list
  if (!first) return
  const what = list.length === 1 ? first.name : count(list.length, 'item')
  const folders = list.filter((item) => item.folder && !item.link).length
  const body = folders > 0 ? (list.length === 1 ? 'The folder and everything in it are deleted for good.' : `${count(folders, 'folder')} among them, with everything inside. They are deleted for good.`) : 'This cannot be undone.'
  if (!(await agree(`Delete ${what}?`, body, 'Delete', 'danger'))) return
  const failed = await each(list, (item) => service.remove(item.path))
  if (shown.value && list.some((item) => within(shown.value ?? '', item.path)) && failed.length === 0) {
    unsaved.value = false
    await hide()
  }
  report(failed, list.length, `Deleted ${what}.`, 'Could not delete')
  await reload()
}

/** Remember paths for pasting. */
export function take(list: Item[], cut: boolean): void {
  if (list.length === 0) return
  clip.value = { cut, paths: list.map((item) => item.path) }
  tell(`${count(list.length, 'item')} ready to ${cut ? 'move' : 'copy'}. Open a folder and paste.`)
}

export async function paste(): Promise<void> {
  const now = clip.value
  if (!now) return
  await transfer(now.paths, dir.value, now.cut)
  if (now.cut) clip.value = null
}

export async function transferTo(list: Item[], cut: boolean): Promise<void> {
  const to = await chooseFolder(cut ? `Move ${label(list)} to` : `Copy ${label(list)} to`, cut ? 'Move here' : 'Copy here', dir.value)
  if (to !== null) await transfer(list.map((item) => item.path), to, cut)
}

function label(list: Item[]): string {
  return list.length === 1 ? (list[0]?.name ?? '') : count(list.length, 'item')
}

type Clash = 'replace' | 'both' | 'skip'

async function clash(list: string[], where: string): Promise<Clash | null> {
  const [first = ''] = list
  return ask<Clash>({
    title: list.length === 1 ? `${first} is already there` : `${count(list.length, 'name')} are already there`,
    body: `${where} already holds ${list.length === 1 ? 'something of this name' : list.slice(0, 3).join(', ') + (list.length > 3 ? ' and more' : '')}.`,
    choices: [
      { label: 'Skip', value: 'skip' },
      { label: 'Replace', value: 'replace', kind: 'danger' },
      { label: 'Keep both', value: 'both', kind: 'main' },
    ],
  })
}

/** Move or copy paths into a folder. */
export async function transfer(paths: string[], to: string, cut: boolean): Promise<void> {
  const doomed = paths.find((path) => within(to, path))
  if (doomed !== undefined && (cut || to !== doomed)) {
    if (cut && parent(doomed) === to) return
    return complain(`${base(doomed) || 'The root'} cannot go into itself.`)
  }
  const work = cut ? paths.filter((path) => parent(path) !== to) : paths
  if (work.length === 0) return
  const verb = cut ? 'move' : 'copy'
  try {
    const taken = new Set((await service.list(to)).items.map((item) => item.name))
    // a copy beside its original is never meant to replace it
    const clashing = work.filter((path) => taken.has(base(path)) && parent(path) !== to).map(base)
    const how = clashing.length > 0 ? await clash(clashing, base(to) || 'The root') : 'both'
    if (how === null) return
    const jobs: { from: string; to: string; replace: boolean }[] = []
    for (const from of work) {
      const name = base(from)
      if (!taken.has(name)) jobs.push({ from, to: join(to, name), replace: false })
      else if (how === 'replace' && parent(from) !== to) jobs.push({ from, to: join(to, name), replace: true })
      else if (how !== 'skip' || parent(from) === to) jobs.push({ from, to: join(to, freeName(name, taken)), replace: false })
      taken.add(base(jobs.at(-1)?.to ?? name))
    }
    const failed = await each(jobs, async (job) => {
      if (job.replace) await service.remove(job.to)
      await (cut ? service.move(job.from, job.to) : service.copy(job.from, job.to, false))
    })
    const done = jobs.length - failed.length
    report(failed, jobs.length, `${cut ? 'Moved' : 'Copied'} ${done === 1 ? base(jobs[0]?.from ?? '') : count(done, 'item')} to ${base(to) || '/'}.`, `Could not ${verb}`)
    if (to === dir.value) afterReload = () => (selected.value = new Set(jobs.map((job) => base(job.to))))
  } catch (error) {
    complain(because(`Could not ${verb}`, error))
  }
  await reload()
}

/** Queue files for a folder. */
export async function upload(found: { files: Found[]; dirs: string[][] }, to = dir.value): Promise<void> {
  const { files, dirs } = found
  if (files.length === 0 && dirs.length === 0) return
  let taken: Set<string>
  try {
    taken = new Set((await service.list(to)).items.map((item) => item.name))
  } catch (error) {
    return complain(because('Could not upload', error))
  }
  const clashing = files.filter(({ dirs: above, file }) => above.length === 0 && taken.has(file.name)).map(({ file }) => file.name)
  const how = clashing.length > 0 ? await clash(clashing, base(to) || 'The root') : 'both'
  if (how === null) return
  const made = new Map<string, Promise<void>>()
  const make = (names: string[]): Promise<void> => {
    if (names.length === 0) return Promise.resolve()
    const path = names.reduce(join, to)
    let promise = made.get(path)
    if (!promise) {
      promise = make(names.slice(0, -1)).then(() =>
        service.makeFolder(path).catch((error: unknown) => {
          if (!(error instanceof Refused && error.status === 409)) throw error
        }),
      )
      made.set(path, promise)
    }
    return promise
  }
  for (const { dirs: above, file } of files) {
    let name = file.name
    if (above.length === 0 && taken.has(name)) {
      if (how === 'skip') continue
      if (how === 'both') name = freeName(name, taken)
    }
    if (above.length === 0) taken.add(name)
    put(join(above.reduce(join, to), name), file, above.length > 0 ? () => make(above) : null)
  }
  // folders without files are folders too
  const results = await Promise.allSettled(dirs.map(make))
  const failed = results.find((result) => result.status === 'rejected')
  if (failed) complain(because('Could not make a folder', failed.reason))
  if (dirs.length > 0) soonReload()
}

/** Hand contents to the browser; folders come as archives. */
export function download(list: Item[]): void {
  let wait = 0
  for (const item of list) {
    if (item.folder && !archives.value) {
      complain(`${item.name} is a folder; this computer does not pack folders.`)
      continue
    }
    // browsers drop downloads that start in the same moment
    setTimeout(() => {
      const link = document.createElement('a')
      link.href = item.folder ? `${contentsUrl(item.path)}?zip=` : contentsUrl(item.path)
      link.download = item.folder ? `${item.name}.zip` : item.name
      link.click()
    }, wait)
    wait += 350
  }
}

export async function copyText(text: string, what: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(text)
    tell(`${what} copied.`)
  } catch {
    complain('The browser does not let this page use the clipboard.')
  }
}

/** The page of a terminal that starts in this folder; none where the host does not tell. */
export function terminalAt(path: string): string | null {
  const here = new URL(location.href)
  const to = sibling(here, 'terminal', placeOf(here.hostname)?.index ?? 1)
  if (!to) return null
  to.search = new URLSearchParams({ new: '', cwd: path }).toString()
  return to.href
}

function names(): Set<string> {
  return new Set(items.value.map((item) => item.name))
}

function nameFault(name: string, taken: ReadonlySet<string>): string | null {
  return wrongName(name) ?? (taken.has(name) ? 'This name is taken.' : null)
}

async function act(what: string, work: () => Promise<void>): Promise<void> {
  try {
    await work()
  } catch (error) {
    complain(because(what, error))
  }
  await reload()
}

/** Do it for each, a few at once; what failed comes back. */
async function each<T>(list: T[], work: (one: T) => Promise<void>): Promise<{ one: T; error: unknown }[]> {
  const failed: { one: T; error: unknown }[] = []
  const queue = [...list]
  const worker = async () => {
    for (let one = queue.shift(); one !== undefined; one = queue.shift()) {
      try {
        await work(one)
      } catch (error) {
        failed.push({ one, error })
      }
    }
  }
  await Promise.all(Array.from({ length: Math.min(AT_ONCE, list.length) }, worker))
  return failed
}

function report(failed: { error: unknown }[], all: number, good: string, bad: string): void {
  if (failed.length === 0) return tell(good)
  const why = because(bad, failed[0]?.error)
  complain(all === 1 ? why : `${failed.length} of ${all} failed. ${why}`)
}
