// Files on their way to a session: staged in slices, then given to the program in it.
import { json, Refused } from '../shared/call.ts'
import type { Found } from '../shared/found.ts'

/** What the service says of a drop that was begun. */
interface Begun {
  drop: string
  token: string
  max_slice: number
  max_bytes: number
  max_items: number
}

export interface Cell {
  row: number
  column: number
}

/** Tries of one slice; each goes on where the service says the file ends. */
const TRIES = 4

/** A path beneath the drop's root. The service keeps its own list where this one would be. */
function staged(names: string[]): string {
  const path = names.join('/')
  return path === 'manifest.json' ? 'dropped-manifest.json' : path
}

/** Stage files and folders and have the session told. `progress` counts bytes. */
export async function send(
  id: string,
  found: { files: Found[]; dirs: string[][] },
  context: 'drop' | 'paste',
  cell: Cell | null,
  progress: (sent: number) => void,
  signal: AbortSignal,
): Promise<void> {
  const session = `terminal_id=${encodeURIComponent(id)}`
  const begun = await json<Begun>(`api/v1/terminal/drop-begin?${session}`, { method: 'POST', signal })
  const bytes = found.files.reduce((sum, { file }) => sum + file.size, 0)
  if (bytes > begun.max_bytes || found.files.length + found.dirs.length > begun.max_items) throw new Refused('That is more than a terminal takes at once. Upload it with Files instead.', 413)
  const key = `${session}&drop=${encodeURIComponent(begun.drop)}&token=${encodeURIComponent(begun.token)}`
  let sent = 0
  for (const { dirs, file } of found.files) {
    const path = staged([...dirs, file.name])
    for (let offset = 0; offset < file.size; ) {
      const slice = file.slice(offset, offset + begun.max_slice)
      const size = await put(`api/v1/terminal/upload?${key}&path=${encodeURIComponent(path)}&offset=`, slice, offset, signal)
      sent += size - offset
      offset = size
      progress(sent)
    }
  }
  const full = new Set(found.files.flatMap(({ dirs }) => dirs.map((_, at) => dirs.slice(0, at + 1).join('/'))))
  const items = [
    ...found.files.map(({ dirs, file }) => ({ p: staged([...dirs, file.name]), s: file.size, name: file.name })),
    ...found.dirs.filter((names) => !full.has(names.join('/'))).map((names) => ({ p: staged(names), d: 1, s: 0, name: names.at(-1) ?? '' })),
  ]
  const body = JSON.stringify({ ctx: context, items, ...(cell ? { r: cell.row, c: cell.column } : {}) })
  await json(`api/v1/terminal/drop-commit?${key}`, { method: 'POST', headers: { 'content-type': 'application/json' }, body, signal })
}

/** Send a slice; where the file ends then. One that arrived although its answer did not is not sent twice. */
async function put(path: string, slice: Blob, offset: number, signal: AbortSignal): Promise<number> {
  for (let tries = 1; ; tries++) {
    try {
      const headers = { 'content-type': 'application/octet-stream' }
      const reply = await json<{ size: number }>(`${path}${offset}`, { method: 'POST', headers, body: slice, signal })
      return reply.size
    } catch (error) {
      if (signal.aborted) throw error
      // the one before arrived after all
      if (tries > 1 && error instanceof Refused && error.status === 409) return offset + slice.size
      if (error instanceof Refused || tries >= TRIES) throw error
      await new Promise((done) => setTimeout(done, 500 * tries))
    }
  }
}
