// The one open session: ties the line to the screen and keeps what the page shows.
import { computed, signal } from '@preact/signals'
import { because, Refused, call, passing, words } from '../shared/call.ts'
import { agree } from '../shared/dialog.tsx'
import { count } from '../shared/format.ts'
import type { Found } from '../shared/found.ts'
import { ROOT } from '../shared/root.ts'
import { dark, recall, remember } from '../shared/theme.ts'
import { complain, tell } from '../shared/toast.tsx'
import type { Cell } from './drop.ts'
import { Link, type State, type Trouble } from './link.ts'
import { FONT_SIZE, optionsOf, socketUrl, unusedId, validId, type Options } from './options.ts'
import { hexColour, palette } from './palette.ts'
import { underHeldKeys } from './keybar.tsx'
import type { Screen } from './screen.ts'
import { create, end, refresh, sessions, shellName } from './sessions.ts'

const FONT_KEY = 'hoody.terminal.font'
const READER_KEY = 'hoody.terminal.reader'
const PROBE_MS = 5000
const BELL_MS = 600

export const options = signal<Options>(optionsOf(new URL(location.href)))
export const id = signal<string | null>(null)
export const state = signal<State>({ is: 'connecting', attempt: 0 })
export const programTitle = signal('')
export const shell = signal('')
export const ringing = signal(false)
export const readonly = signal(options.value.readonly)
export const finding = signal(false)
export const reader = signal(recall(READER_KEY) === '1')
export const ready = signal(false)
/** The ground asked for by the address or by the service; null follows the theme. */
export const ground = signal(hexColour(options.value.background))

const coarse = matchMedia('(pointer: coarse)').matches
const usual = coarse ? FONT_SIZE.touch : FONT_SIZE.usual
export const font = signal(options.value.fontSize ?? storedFont() ?? usual)
export const title = computed(() => options.value.title ?? (programTitle.value || shellName(shell.value)))

let screen: Screen | null = null
let link: Link | null = null
let unseen = false

function storedFont(): number | null {
  const size = Number(recall(FONT_KEY))
  return size >= FONT_SIZE.least && size <= FONT_SIZE.most ? size : null
}

/** Put the screen into the page and open the first session. */
export async function open(place: HTMLElement, chord: (event: KeyboardEvent) => boolean): Promise<void> {
  const first = optionsOf(new URL(location.href))
  const list = refresh()
  // the page is drawn before the screen in it, which is the larger part by far
  const { Screen } = await import('./screen.ts')
  screen = await Screen.open(place, {
    font: font.value,
    theme: palette(dark.value, ground.value),
    readonly: readonly.value,
    renderer: first.renderer,
    reader: reader.value,
    typed: (text) => void type(underHeldKeys(text)),
    binary: (text) => void link?.binary(text),
    resized: (size) => link?.resize(size),
    bell: ring,
    title: (text) => (programTitle.value = text),
    flood: (full) => (full ? link?.pause() : link?.resume()),
    drawn: report,
    chord,
  })
  ready.value = true
  let wanted = first.terminalId
  if (first.fresh) {
    await list
    wanted = unusedId(sessions.value.map((session) => session.terminal_id)) ?? wanted
    settle(wanted)
  }
  connect(wanted)
  if (!coarse) screen.focus()

  ground.subscribe(() => restyle())
  dark.subscribe(() => restyle())
  addEventListener('popstate', () => {
    const next = optionsOf(new URL(location.href))
    options.value = next
    if (next.terminalId !== id.value) connect(next.terminalId)
  })
  addEventListener('online', () => link?.retry())
  addEventListener('offline', () => link?.doubt())
  document.addEventListener('visibilitychange', () => {
    if (document.hidden) return
    unseen = false
    retitle()
    // a phone that slept has lines that are dead and do not know it
    if (state.value.is === 'waiting') link?.retry()
    else link?.doubt()
  })
  for (const watched of [title, id]) watched.subscribe(retitle)
}

function restyle(): void {
  if (screen) screen.theme = palette(dark.value, ground.value)
}

function retitle(): void {
  const name = id.value ? `${title.value} · Terminal ${id.value}` : `${title.value} · Terminal`
  document.title = unseen ? `● ${name}` : name
}

function ring(): void {
  ringing.value = true
  setTimeout(() => (ringing.value = false), BELL_MS)
  if (document.hidden) {
    unseen = true
    retitle()
  }
}

function connect(wanted: string | null): void {
  link?.close()
  const there = screen
  if (!there) return
  const known = sessions.value.some((session) => session.terminal_id === wanted)
  const moved = id.value !== null
  id.value = wanted
  programTitle.value = ''
  shell.value = sessions.value.find((session) => session.terminal_id === wanted)?.shell ?? ''
  if (moved) there.renew()
  const now: Link = new Link({
    url: (again) => socketUrl(ROOT, options.value, id.value, again),
    size: () => there.size,
    token: options.value.token,
    state: (next) => {
      state.value = next
      if (next.is === 'open') void refresh()
    },
    frame: (frame, { first, again }) => {
      switch (frame.is) {
        case 'output':
          // what the session shows on return takes the place of what was here
          if (first && again) there.renew()
          return there.write(frame.bytes, first && (again || known))
        case 'title':
          programTitle.value = frame.text.slice(0, 500)
          return
        case 'preferences':
          return prefer(frame.values)
        case 'terminal': {
          const told = validId(frame.id)
          if (told && told !== id.value) {
            id.value = told
            settle(told)
          }
          return
        }
        case 'shell':
          shell.value = frame.name
      }
    },
    probe,
  })
  link = now
  now.open()
}

/** Make the address say which session this is. */
function settle(wanted: string | null): void {
  const url = new URL(location.href)
  url.searchParams.delete('new')
  if (wanted) url.searchParams.set('terminal_id', wanted)
  history.replaceState(null, '', url)
  options.value = optionsOf(url)
}

/** What the service would like, where the address does not say. */
function prefer(values: Record<string, unknown>): void {
  const size = values['fontSize']
  if (options.value.fontSize === null && storedFont() === null && typeof size === 'number' && size >= FONT_SIZE.least && size <= FONT_SIZE.most) resizeFont(size, false)
  const theme = values['theme']
  const colour = hexColour(values['backgroundColor']) ?? hexColour(theme && typeof theme === 'object' ? (theme as Record<string, unknown>)['background'] : null)
  if (colour && !ground.value) ground.value = colour
  if (values['readonly'] === true || values['disableStdin'] === true) {
    readonly.value = true
    if (screen) screen.readonly = true
  }
  const style = values['cursorStyle']
  if (screen && (style === 'block' || style === 'bar' || style === 'underline')) screen.term.options.cursorStyle = style
  if (screen && typeof values['cursorBlink'] === 'boolean') screen.term.options.cursorBlink = values['cursorBlink']
}

/**
 * What is wrong with the service; null when it answers. A browser hides why a WebSocket was not
 * opened: where the service is well, asking it for the same session by HTTP tells.
 */
async function probe(closed: boolean): Promise<Trouble | null> {
  const signal = AbortSignal.timeout(PROBE_MS)
  try {
    await call('api/v1/terminal/health', { cache: 'no-store', signal })
  } catch (error) {
    // a computer on this very machine answers without any network
    if (!navigator.onLine) return { why: 'This device is offline.', final: false }
    return { why: error instanceof DOMException ? 'No answer from this computer.' : words(error), final: false }
  }
  if (!closed || !id.value) return null
  try {
    await create(id.value, options.value.session, signal)
    return { why: 'The terminal did not open.', final: false }
  } catch (error) {
    return { why: words(error), final: error instanceof Refused && !passing(error) && error.status < 500 }
  }
}

export function retry(): void {
  link?.retry()
  screen?.focus()
}

/** Whether the shell got it. */
export function type(text: string): boolean {
  if (readonly.value) return false
  if (link?.input(text)) return true
  if (state.value.is === 'ended' && text === '\r') retry()
  return false
}

export function application(): boolean {
  return screen?.term.modes.applicationCursorKeysMode ?? false
}

export function focus(): void {
  screen?.focus()
}

// sessions

export function go(to: string): void {
  if (to === id.value) return focus()
  const url = new URL(location.href)
  url.searchParams.set('terminal_id', to)
  url.searchParams.delete('cmd')
  history.pushState(null, '', url)
  options.value = optionsOf(url)
  connect(to)
  focus()
}

export async function fresh(): Promise<void> {
  await refresh()
  const taken = sessions.value.map((session) => session.terminal_id)
  const next = unusedId(id.value ? [...taken, id.value] : taken)
  if (next) go(next)
  else complain('Every session number is taken. Close a session first.')
}

export async function close(which: string): Promise<void> {
  const sure = await agree(`Close session ${which}?`, 'Its shell and the programs that run in it are stopped.', 'Close session', 'danger')
  if (!sure) return focus()
  try {
    await end(which)
    await refresh()
    if (which === id.value) {
      const other = sessions.value.find((session) => session.terminal_id !== which)
      if (other) go(other.terminal_id)
    } else tell(`Session ${which} is closed.`)
  } catch (error) {
    complain(`Could not close session ${which}. ${words(error)}`)
  }
  focus()
}

// text

export function selection(): string {
  return screen?.term.getSelection() ?? ''
}

export async function copy(): Promise<void> {
  const text = selection()
  if (!text) return tell('Select text first, then copy it.')
  try {
    await navigator.clipboard.writeText(text)
    screen?.term.clearSelection()
    tell('Copied.')
  } catch {
    complain('The browser does not let this page use the clipboard.')
  }
  focus()
}

export async function paste(): Promise<void> {
  try {
    const text = await navigator.clipboard.readText()
    if (text && !readonly.value) screen?.term.paste(text)
  } catch {
    complain('The browser does not let this page read the clipboard. Paste with the keyboard instead.')
  }
  focus()
}

// files

/** Files on their way: how many of them, and how far they are. */
export const sending = signal<{ files: number; part: number; stop: () => void } | null>(null)

/** Give files to the program in the session: a shell gets their paths typed. */
export async function give(found: { files: Found[]; dirs: string[][] }, context: 'drop' | 'paste', point: { x: number; y: number } | null): Promise<void> {
  const to = id.value
  if (!to || readonly.value || (found.files.length === 0 && found.dirs.length === 0)) return
  if (sending.value) return complain('Other files are still on their way to this terminal.')
  const total = found.files.reduce((sum, { file }) => sum + file.size, 0)
  const stop = new AbortController()
  const note = (sent: number) => (sending.value = { files: found.files.length, part: total > 0 ? sent / total : 1, stop: () => stop.abort() })
  note(0)
  try {
    const { send } = await import('./drop.ts') // few visits need it
    await send(to, found, context, point && cellAt(point), note, stop.signal)
    tell(`${count(found.files.length || found.dirs.length, found.files.length ? 'file' : 'folder')} given to session ${to}.`)
  } catch (error) {
    if (!stop.signal.aborted) complain(because('Could not give the files to the terminal', error))
  } finally {
    sending.value = null
  }
  focus()
}

/** The cell at a point of the window. */
function cellAt({ x, y }: { x: number; y: number }): Cell | null {
  const box = screen?.term.element?.querySelector('.xterm-screen')?.getBoundingClientRect()
  if (!screen || !box || box.width === 0 || box.height === 0) return null
  const at = (part: number, cells: number) => Math.max(0, Math.min(cells - 1, Math.floor(part * cells)))
  const { columns, rows } = screen.size
  return { row: at((y - box.top) / box.height, rows), column: at((x - box.left) / box.width, columns) }
}

/** The page's version: the hash in the name of its script. */
function buildId(): string {
  const script = document.querySelector<HTMLScriptElement>('script[type=module][src]')?.src ?? ''
  return /-([\w-]{8})\.js$/.exec(script)?.[1] ?? 'unknown'
}

/** Tell the service how the screen is drawn. */
function report(reason: string): void {
  const body = JSON.stringify({ build_id: buildId(), renderer: screen?.drawnBy ?? 'dom', reason })
  // whoever does not hear it loses nothing
  void call('api/v1/terminal/state', { method: 'POST', headers: { 'content-type': 'application/json' }, body }).catch(() => undefined)
}

export function selectAll(): void {
  screen?.term.selectAll()
  focus()
}

export function clear(): void {
  screen?.term.clear()
  focus()
}

export async function find(text: string, back: boolean): Promise<boolean> {
  return (await screen?.find(text, back)) ?? false
}

export function endFind(): void {
  finding.value = false
  screen?.endFind()
}

// looks

export function resizeFont(size: number, keep = true): void {
  const next = Math.max(FONT_SIZE.least, Math.min(FONT_SIZE.most, Math.round(size)))
  font.value = next
  if (screen) screen.font = next
  if (keep) remember(FONT_KEY, next === usual ? null : String(next))
}

export function usualFont(): void {
  resizeFont(options.value.fontSize ?? usual)
}

export function setReader(on: boolean): void {
  reader.value = on
  remember(READER_KEY, on ? '1' : null)
  if (screen) screen.reader = on
  focus()
}
