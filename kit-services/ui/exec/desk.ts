// What the page knows, and what it asks the service for.
import { signal } from '@preact/signals'
import { delay } from '../shared/backoff.ts'
import { because, call, json, url } from '../shared/call.ts'
import { complain, tell } from '../shared/toast.tsx'
import { below, routeOf } from './routes.ts'

const API = 'api/v1/exec'
/** Lines of the log that the page keeps. */
const LINES = 500

export interface Script {
  path: string
  size: number
  modified: string
  magicComments: Record<string, unknown> | null
}

export interface Template {
  name: string
  metadata: { description: string; params: string[] }
}

export interface Answer {
  status: number
  took: number
  type: string
  text: string
}

export const scripts = signal<Script[] | null>(null)
export const home = signal('default/1')
export const shown = signal<{ path: string; text: string } | null>(null)
export const dirty = signal(false)
export const saving = signal(false)
export const answer = signal<Answer | null>(null)
export const running = signal(false)
export const lines = signal<string[]>([])
export const away = signal(false)

export async function refresh(): Promise<void> {
  try {
    const found = await json<{ directory: string; scripts: Script[] }>(`${API}/scripts/list?recursive=true&metadata=true&include_comments=true`)
    home.value = found.directory
    scripts.value = found.scripts
    away.value = false
  } catch (error) {
    away.value = true
    if (scripts.value === null) complain(because('The scripts cannot be listed', error))
  }
}

export async function open(path: string): Promise<void> {
  try {
    const read = await json<{ content: string; resolvedPath: string }>(`${API}/scripts/read?path=${encodeURIComponent(path)}`)
    shown.value = { path: read.resolvedPath, text: read.content }
    dirty.value = false
    answer.value = null
  } catch (error) {
    complain(because('The script cannot be read', error))
  }
}

export async function save(path: string, text: string): Promise<boolean> {
  saving.value = true
  try {
    const written = await post<{ created: boolean; warnings: { directive: string; message: string }[] }>('scripts/write', { path, content: text })
    for (const { directive, message } of written.warnings) complain(`${directive}: ${message}`)
    await refresh()
    return true
  } catch (error) {
    complain(because('Not saved', error))
    return false
  } finally {
    saving.value = false
  }
}

export async function remove(path: string): Promise<void> {
  try {
    await call(`${API}/scripts/delete?path=${encodeURIComponent(path)}&confirm=true`, { method: 'DELETE' })
    if (shown.value?.path === path) shown.value = null
    await refresh()
    tell('Deleted.')
  } catch (error) {
    complain(because('Not deleted', error))
  }
}

export async function templates(): Promise<Template[]> {
  return (await json<{ templates: Template[] }>(`${API}/templates/list`)).templates
}

/** Begin a script, of a template where one is named. */
export async function begin(path: string, template: string | null, variables: Record<string, string>): Promise<boolean> {
  try {
    if (template) await post('templates/generate', { name: template, variables, outputPath: path, saveFile: true })
    else await post('scripts/write', { path, content: "return { hello: metadata.query.name ?? 'world' };\n", ifNotExists: true })
    await refresh()
    return true
  } catch (error) {
    complain(because('Not made', error))
    return false
  }
}

/** Ask a script as anybody would. */
export async function run(method: string, path: string, body: string): Promise<void> {
  running.value = true
  const begun = performance.now()
  try {
    const bare = method === 'GET' || method === 'HEAD'
    const reply = await fetch(url(path.replace(/^\/+/, '')), {
      method,
      credentials: 'same-origin',
      headers: bare || !body ? {} : { 'content-type': 'application/json' },
      body: bare || !body ? null : body,
    })
    const text = await reply.text()
    answer.value = { status: reply.status, took: performance.now() - begun, type: reply.headers.get('content-type') ?? '', text: text.slice(0, 200_000) }
  } catch (error) {
    complain(because('No answer', error))
  } finally {
    running.value = false
  }
}

/** The address of a script, or none where it has none. */
export function addressOf(path: string): string | null {
  const its = below(path, home.value)
  return its === null ? null : routeOf(its)
}

/** Follow what scripts say; begins anew by itself. */
export function follow(): () => void {
  let source: EventSource | null = null
  let timer: ReturnType<typeof setTimeout> | undefined
  let tries = 0
  const connect = () => {
    source = new EventSource(url(`${API}/logs/stream?file=exec.log`))
    source.onopen = () => {
      tries = 0
      away.value = false
      lines.value = []
    }
    source.onmessage = (event) => {
      const { line } = JSON.parse(event.data as string) as { line: string }
      lines.value = [...lines.value, line].slice(-LINES)
    }
    source.onerror = () => {
      source?.close()
      away.value = true
      timer = setTimeout(connect, delay(tries++, Math.random()))
    }
  }
  connect()
  return () => {
    clearTimeout(timer)
    source?.close()
  }
}

async function post<T>(path: string, body: unknown): Promise<T> {
  return json<T>(`${API}/${path}`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) })
}
