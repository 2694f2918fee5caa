// What the address of the page asks for.
import { placeOf } from '../shared/place.ts'

/** Words for the page itself; everything else in the query is the session's and goes on to it. */
const PAGE_ONLY = new Set([
  'title',
  'fontSize',
  'backgroundColor',
  'hide-toolbar',
  'panel',
  'panel-visible',
  'panel-position',
  'panel-width',
  'panel-height',
  'panel-resizable',
  'redirect',
  'redirect_delay',
  'theme',
  'renderer',
  'new',
])

/** What starts or greets a session: asked for once, never again when the line comes back. */
const ONCE = ['cmd', 'startup_script', 'welcome', 'onboarding', 'reset']

/** Height of a letter, in pixels. */
export const FONT_SIZE = { usual: 13, touch: 12, least: 8, most: 72 }

/** Ids that people use; those above are handed out to commands that run once. */
export const LAST_ID = 39_999
const HIGHEST_ID = 65_535

/** How the screen is drawn; `auto` takes the graphics card where there is a real one. */
export type Renderer = 'auto' | 'dom' | 'webgl'

export interface Options {
  /** The session asked for; none leaves the choice to the service. */
  terminalId: string | null
  /** Take an unused id. */
  fresh: boolean
  readonly: boolean
  title: string | null
  fontSize: number | null
  background: string | null
  toolbar: boolean
  renderer: Renderer
  token: string | null
  session: URLSearchParams
}

const TITLE_LIMIT = 200

export function optionsOf(url: URL): Options {
  const query = url.searchParams
  const session = new URLSearchParams()
  for (const [name, value] of query) if (!PAGE_ONLY.has(name) && name !== 'terminal_id') session.append(name, value)
  const place = placeOf(url.hostname)
  const size = Number(query.get('fontSize') ?? '')
  const renderer = query.get('renderer')
  return {
    terminalId: validId(query.get('terminal_id')) ?? (place?.slug === 'terminal' ? validId(String(place.index)) : null),
    fresh: on(query.get('new')),
    readonly: on(query.get('readonly')),
    title: query.get('title')?.slice(0, TITLE_LIMIT) || null,
    fontSize: Number.isInteger(size) && size >= FONT_SIZE.least && size <= FONT_SIZE.most ? size : null,
    background: query.get('backgroundColor') || null,
    toolbar: !on(query.get('hide-toolbar')),
    renderer: renderer === 'dom' || renderer === 'webgl' ? renderer : 'auto',
    token: query.get('token'),
    session,
  }
}

/** An id from 1 to 65535; 0 means none. */
export function validId(text: string | null): string | null {
  if (!text || !/^\d{1,5}$/.test(text)) return null
  const id = Number(text)
  return id >= 1 && id <= HIGHEST_ID ? String(id) : null
}

/** A flag is on when it is there, unless it says otherwise. */
function on(value: string | null): boolean {
  return value !== null && !['0', 'false', 'no', 'off'].includes(value.toLowerCase())
}

/** Where the session's WebSocket is. `again` is a line that comes back to a session it had. */
export function socketUrl(base: string | URL, options: Options, id: string | null, again: boolean): URL {
  const url = new URL('api/v1/terminal/ws', base)
  url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:'
  const query = new URLSearchParams(options.session)
  if (again) for (const name of ONCE) query.delete(name)
  if (id) query.set('terminal_id', id)
  url.search = query.toString()
  return url
}

/** The lowest id that no session has. */
export function unusedId(taken: Iterable<string>): string | null {
  const ids = new Set(taken)
  for (let id = 1; id <= LAST_ID; id++) if (!ids.has(String(id))) return String(id)
  return null
}
