// The sessions that this computer has.
import { signal } from '@preact/signals'
import { call, json } from '../shared/call.ts'

export interface Session {
  terminal_id: string
  shell?: string
  title?: string
  status?: string
  created_at?: string
  command_history?: { command?: unknown }[]
}

const LIST_MS = 3000

export const sessions = signal<Session[]>([])

/** Ask again who is there; the list stays as it was when nobody answers. */
export async function refresh(): Promise<void> {
  try {
    const found = await json<unknown>('api/v1/terminal/sessions?history_limit=1', { signal: AbortSignal.timeout(LIST_MS) })
    if (!Array.isArray(found)) return
    sessions.value = found
      .filter((one): one is Session => typeof one === 'object' && one !== null && 'terminal_id' in one)
      .map((one) => ({ ...one, terminal_id: String(one.terminal_id) }))
      .sort((a, b) => Number(a.terminal_id) - Number(b.terminal_id))
  } catch {
    // the state of the line says that the service is away
  }
}

export async function end(id: string): Promise<void> {
  await call(`api/v1/terminal/${encodeURIComponent(id)}`, { method: 'DELETE' })
}

/** What a session can be asked to be, both here and on the line. */
const WISHES = ['shell', 'user', 'cwd', 'display', 'ssh_host', 'ssh_user', 'ssh_port', 'socks5_host', 'socks5_port']

/** Make a session without a line to it; one that is there is left as it is. */
export async function create(id: string, wishes: URLSearchParams, signal: AbortSignal): Promise<void> {
  const body: Record<string, string | boolean> = { terminal_id: id }
  for (const name of WISHES) {
    const value = wishes.get(name)
    if (value !== null) body[name] = value
  }
  if (wishes.get('cwd_auto_create') === 'true') body['cwd_auto_create'] = true
  await call('api/v1/terminal/create', { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body), signal })
}

/** `bash` for `/usr/bin/bash`. */
export function shellName(path: string | undefined): string {
  return path?.split('/').pop() || 'shell'
}

/** What tells a session from the others: its title, else its last command, else its shell. */
export function label(session: Session): string {
  const command = session.command_history?.at(-1)?.command
  if (session.title) return session.title
  return typeof command === 'string' && command ? command : shellName(session.shell)
}
