import { signal } from '@preact/signals'
import { ArrowLeft, FileCode, Play, Plus, Save, Trash2, ExternalLink } from 'lucide'
import { useEffect, useRef, useState } from 'preact/hooks'
import { IconButton } from '../shared/button.tsx'
import { url } from '../shared/call.ts'
import { DialogHost, agree, ask, request } from '../shared/dialog.tsx'
import { Icon } from '../shared/icon.tsx'
import { MenuHost } from '../shared/menu.tsx'
import { PageMark } from '../shared/pages.tsx'
import { ToastHost, complain } from '../shared/toast.tsx'
import type { Editor } from '../files/editor.ts'
import * as desk from './desk.ts'

let editor: Editor | null = null
const tab = signal<'run' | 'logs'>('run')
const METHODS = ['GET', 'POST', 'PUT', 'PATCH', 'DELETE']

export function App() {
  useEffect(() => {
    void desk.refresh()
    const looking = setInterval(() => document.visibilityState === 'visible' && void desk.refresh(), 10_000)
    const leave = (event: BeforeUnloadEvent) => desk.dirty.value && event.preventDefault()
    addEventListener('beforeunload', leave)
    const end = desk.follow()
    return () => {
      clearInterval(looking)
      removeEventListener('beforeunload', leave)
      end()
    }
  }, [])
  const shown = desk.shown.value
  return (
    <>
      <header class="bar">
        <PageMark slug="exec" />
        <span class="bar-rule" />
        {shown && <IconButton icon={ArrowLeft} id="back" class="back" label="All scripts" onClick={() => void close()} />}
        <span class="cut spread script-name">{shown ? shown.path.replace(`${desk.home.value}/`, '') : ''}</span>
        {shown && <Actions path={shown.path} />}
        <IconButton icon={Plus} id="new" label="New script" onClick={() => void begin()} />
      </header>
      {desk.away.value && (
        <p class="banner" role="status">
          This computer does not answer. Trying again…
        </p>
      )}
      <div class={shown ? 'body has-script' : 'body'}>
        <Scripts />
        {shown ? (
          <main class="script">
            <Text key={shown.path} path={shown.path} text={shown.text} />
            <Foot path={shown.path} />
          </main>
        ) : (
          <main class="script nothing">
            <p class="faint">A file here is an endpoint. Choose a script, or make one.</p>
          </main>
        )}
      </div>
      <MenuHost />
      <DialogHost />
      <ToastHost />
    </>
  )
}

function Actions({ path }: { path: string }) {
  const address = desk.addressOf(path)
  return (
    <>
      <button type="button" id="save" class="button" disabled={!desk.dirty.value || desk.saving.value} onClick={() => void save()}>
        <Icon of={Save} />
        <span>Save</span>
      </button>
      {address && !address.includes('[') && <IconButton icon={ExternalLink} label={`Open ${address}`} onClick={() => void globalThis.open(url(address.slice(1)), '_blank', 'noopener')} />}
      <IconButton
        icon={Trash2}
        id="delete"
        label="Delete"
        onClick={async () => {
          if (await agree('Delete this script?', <p>{path} answers no more, and cannot be brought back.</p>, 'Delete', 'danger')) await desk.remove(path)
        }}
      />
    </>
  )
}

function Scripts() {
  const all = desk.scripts.value
  if (all === null) return <nav class="scripts" aria-busy="true" />
  return (
    <nav class="scripts" aria-label="Scripts">
      {all.length === 0 && (
        <div class="empty">
          <p>No scripts yet.</p>
          <button type="button" class="button main" onClick={() => void begin()}>
            New script
          </button>
        </div>
      )}
      <ul>
        {all.map((script) => {
          const address = desk.addressOf(script.path)
          const note = script.magicComments?.['schedule'] ?? script.magicComments?.['description']
          return (
            <li key={script.path}>
              <button type="button" class="script-row" aria-current={desk.shown.value?.path === script.path} onClick={() => void open(script.path)}>
                <Icon of={FileCode} size={15} class="faint" />
                <span class="script-words">
                  <span class="cut mono">{address ?? script.path.replace(`${desk.home.value}/`, '')}</span>
                  {note ? <span class="cut faint small">{String(note)}</span> : null}
                </span>
              </button>
            </li>
          )
        })}
      </ul>
    </nav>
  )
}

function Text({ path, text }: { path: string; text: string }) {
  const place = useRef<HTMLDivElement>(null)
  useEffect(() => {
    let gone = false
    void import('../files/editor.ts').then(async ({ open }) => {
      if (gone || !place.current) return
      const made = await open(place.current, {
        name: path.split('/').at(-1) ?? path,
        text,
        ends: text.includes('\r\n') ? '\r\n' : '\n',
        changed: (dirty) => (desk.dirty.value = dirty),
        save: () => void save(),
        leave: () => document.getElementById('save')?.focus(),
      })
      if (gone) return made.close()
      editor = made
      made.editable(true)
    })
    return () => {
      gone = true
      editor?.close()
      editor = null
    }
  }, [path])
  return <div class="text" ref={place} />
}

function Foot({ path }: { path: string }) {
  return (
    <section class="foot" aria-label="Run and logs">
      <div class="tabs" role="tablist">
        {(['run', 'logs'] as const).map((name) => (
          <button key={name} type="button" role="tab" id={`tab-${name}`} class="tab" aria-selected={tab.value === name} onClick={() => (tab.value = name)}>
            {name === 'run' ? 'Run' : 'Logs'}
          </button>
        ))}
      </div>
      {tab.value === 'run' ? <Run key={path} path={path} /> : <Logs />}
    </section>
  )
}

function Run({ path }: { path: string }) {
  const [method, setMethod] = useState('GET')
  const [to, setTo] = useState(desk.addressOf(path) ?? '/')
  const [body, setBody] = useState('')
  const answer = desk.answer.value
  return (
    <form
      class="run"
      onSubmit={(event) => {
        event.preventDefault()
        void (async () => {
          if (desk.dirty.value && !(await save())) return
          await desk.run(method, to, body)
        })()
      }}
    >
      <div class="run-line">
        <select class="input" aria-label="Method" value={method} onChange={(event) => setMethod(event.currentTarget.value)}>
          {METHODS.map((name) => (
            <option key={name}>{name}</option>
          ))}
        </select>
        <input class="input spread mono" id="address" aria-label="Address" value={to} spellcheck={false} onInput={(event) => setTo(event.currentTarget.value)} />
        <button type="submit" id="run" class="button main" disabled={desk.running.value}>
          <Icon of={Play} />
          <span>Run</span>
        </button>
      </div>
      {method !== 'GET' && <textarea class="input mono run-body" aria-label="Body (JSON)" placeholder='{"name": "value"}' value={body} onInput={(event) => setBody(event.currentTarget.value)} />}
      {answer && (
        <div class="answer" aria-live="polite">
          <p class="small">
            <span class={answer.status < 400 ? 'badge' : 'badge bad'} id="status">
              {answer.status}
            </span>{' '}
            <span class="faint">
              {answer.took.toFixed(answer.took < 10 ? 1 : 0)} ms · {answer.type || 'no body'}
            </span>
          </p>
          <pre class="mono" id="answer">
            {pretty(answer)}
          </pre>
        </div>
      )}
    </form>
  )
}

function pretty({ type, text }: desk.Answer): string {
  if (!/\bjson\b/.test(type)) return text
  try {
    return JSON.stringify(JSON.parse(text), null, 2)
  } catch {
    return text
  }
}

function Logs() {
  const place = useRef<HTMLPreElement>(null)
  const lines = desk.lines.value
  useEffect(() => {
    const it = place.current
    if (it && it.scrollHeight - it.scrollTop - it.clientHeight < 120) it.scrollTop = it.scrollHeight
  }, [lines])
  return (
    <pre class="mono logs" id="logs" ref={place} tabIndex={0} aria-label="What scripts say">
      {lines.length ? lines.join('\n') : 'Nothing was said yet. What a script writes with console.log stands here.'}
    </pre>
  )
}

async function save(): Promise<boolean> {
  const shown = desk.shown.value
  const taken = editor?.take()
  if (!shown || !taken) return false
  const done = await desk.save(shown.path, taken.text)
  if (done) taken.saved()
  return done
}

async function mayLeave(): Promise<boolean> {
  return !desk.dirty.value || agree('Leave without saving?', <p>What was changed is lost.</p>, 'Leave', 'danger')
}

async function open(path: string): Promise<void> {
  if (await mayLeave()) await desk.open(path)
}

async function close(): Promise<void> {
  if (!(await mayLeave())) return
  desk.dirty.value = false
  desk.shown.value = null
}

async function begin(): Promise<void> {
  if (!(await mayLeave())) return
  let templates: desk.Template[]
  try {
    templates = await desk.templates()
  } catch {
    return complain('The templates cannot be listed.')
  }
  const template = await ask<string>({
    title: 'New script',
    body: (
      <dl class="templates small">
        {templates.map(({ name, metadata }) => (
          <div key={name}>
            <dt class="mono">{name}</dt>
            <dd class="faint">{metadata.description.replace(/\{\{\w+\}\}/g, '…')}</dd>
          </div>
        ))}
      </dl>
    ),
    choices: [{ label: 'Empty', value: '', kind: 'main' }, ...templates.map(({ name }) => ({ label: name, value: name }))],
    wide: true,
  })
  if (template === null) return
  const usual = template === 'self-writing' ? '[...slug].ts' : template === 'room' ? 'rooms/[room].ts' : `${template || 'hello'}.ts`
  const path = await request({ title: 'New script', label: 'Path; it is the address', value: usual, action: 'Make', check: (text) => (/\.(ts|js)$/.test(text) ? null : 'It ends in .ts or .js.') })
  if (path === null) return
  const variables: Record<string, string> = {}
  for (const name of templates.find((it) => it.name === template)?.metadata.params ?? []) {
    const value = await request({ title: template, label: name, action: 'Go on' })
    if (value === null) return
    variables[name] = value
  }
  if (await desk.begin(path, template || null, variables)) await desk.open(path)
}
