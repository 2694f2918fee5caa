import { signal } from '@preact/signals'
import { CircleAlert, EllipsisVertical, Eraser, Link, Pause, Play, RefreshCw, Search, SearchX, ScrollText, X } from 'lucide'
import { useEffect, useRef, useState } from 'preact/hooks'
import { IconButton } from '../shared/button.tsx'
import { DialogHost, agree, dialogOpen } from '../shared/dialog.tsx'
import { Icon } from '../shared/icon.tsx'
import { MenuButton, MenuHost, type Entry } from '../shared/menu.tsx'
import { PageMark } from '../shared/pages.tsx'
import { ToastHost, complain, tell } from '../shared/toast.tsx'
import * as desk from './desk.ts'
import { Detail } from './detail.tsx'
import { EVERYTHING, LEVELS, USUAL, isUsual } from './filter.ts'
import { List } from './list.tsx'

const seeking = signal(desk.filter.value.text !== '')

export function App() {
  useEffect(() => {
    void desk.open()
    const keys = (event: KeyboardEvent) => {
      const typing = event.target instanceof HTMLInputElement || event.target instanceof HTMLTextAreaElement
      if (event.key !== '/' || typing || dialogOpen() || event.ctrlKey || event.metaKey || event.altKey) return
      event.preventDefault()
      seeking.value = true
      requestAnimationFrame(() => document.getElementById('search')?.focus())
    }
    addEventListener('keydown', keys)
    return () => removeEventListener('keydown', keys)
  }, [])
  return (
    <>
      <Bar />
      <Filters />
      <Away />
      <div class="body">
        <main class="entries" aria-label="Requests">
          <Body />
        </main>
        {desk.shown.value && <Detail key={desk.shown.value.entry.id} row={desk.shown.value} />}
      </div>
      <MenuHost />
      <DialogHost />
      <ToastHost />
    </>
  )
}

function Bar() {
  return (
    <header class="bar">
      <PageMark slug="logs" />
      <span class="bar-rule" />
      <Seek />
      <Live />
      <MenuButton id="more" icon={EllipsisVertical} label="More" entries={more} />
    </header>
  )
}

/** The search field; on a phone behind a button, until it is used. */
function Seek() {
  const text = desk.filter.value.text
  const field = useRef<HTMLInputElement>(null)
  return (
    <div class={`seek spread${seeking.value ? ' open' : ''}`} role="search">
      <IconButton
        icon={Search}
        id="seek"
        class="seek-opener"
        label="Search"
        onClick={() => {
          seeking.value = true
          requestAnimationFrame(() => field.current?.focus())
        }}
      />
      <div class="seek-field">
        <Icon of={Search} size={15} class="faint" />
        <input
          ref={field}
          id="search"
          class="input"
          type="search"
          placeholder="Address, client or trace"
          aria-label="Search in addresses, clients and traces"
          value={text}
          spellcheck={false}
          autocomplete="off"
          autocapitalize="off"
          onInput={(event) => desk.look({ text: event.currentTarget.value })}
          onBlur={() => {
            if (!desk.filter.value.text) seeking.value = false
          }}
          onKeyDown={(event) => {
            if (event.key === 'ArrowDown') {
              event.preventDefault()
              document.getElementById('rows')?.focus()
            } else if (event.key === 'Escape') {
              event.preventDefault()
              if (text) desk.look({ text: '' })
              else event.currentTarget.blur()
            }
          }}
        />
        {text && <IconButton icon={X} label="Clear the search" onClick={() => (desk.look({ text: '' }), field.current?.focus())} />}
      </div>
    </div>
  )
}

function Live() {
  const line = desk.line.value
  const dot = { live: 'good', connecting: 'wait', waiting: 'wait', paused: '', gone: 'bad' }[line.is]
  const name = { live: 'Live', connecting: 'Connecting', waiting: 'Offline', paused: 'Paused', gone: 'Ended' }[line.is]
  const paused = line.is === 'paused'
  return (
    <button
      type="button"
      id="live"
      class="button plain live"
      data-state={line.is}
      disabled={line.is === 'gone'}
      aria-label={paused ? 'Paused: follow again' : `${name}: pause`}
      title={paused ? 'Follow again' : 'Pause'}
      onClick={desk.toggle}
    >
      <span class={`dot ${dot}`} />
      <span class="live-name">{name}</span>
      <Icon of={paused ? Play : Pause} size={15} class="faint" />
    </button>
  )
}

function more(): Entry[] {
  return [
    { label: 'Refresh', icon: RefreshCw, do: () => void desk.load() },
    { label: 'Copy address of this view', icon: Link, do: () => void copy(location.href, 'The address of this view is copied.') },
    '-',
    {
      label: 'Clear the log',
      icon: Eraser,
      danger: true,
      do: () =>
        void agree('Clear the log?', 'All entries of this computer are removed, for everybody who looks at this page.', 'Clear the log', 'danger').then((agreed) => {
          if (agreed) void desk.clear()
        }),
    },
  ]
}

export async function copy(text: string, done: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(text)
    tell(done)
  } catch {
    complain('The browser does not let this page copy. Select the text and copy it by hand.')
  }
}

const STATUSES = [
  { value: '2xx', name: 'Success', note: '2xx' },
  { value: '3xx', name: 'Redirection', note: '3xx' },
  { value: '4xx', name: 'Wrong request', note: '4xx' },
  { value: '5xx', name: 'Failure', note: '5xx' },
  { value: '499', name: 'Client left', note: '499' },
]

function Filters() {
  const filter = desk.filter.value
  const one = (label: string, value: string, values: string[], set: (value: string) => void): Entry[] => [
    { label: `Any ${label}`, checked: value === '', do: () => set('') },
    '-',
    ...[...new Set([...values, ...(value ? [value] : [])])].map((name) => ({ label: name, checked: value === name, do: () => set(name) })),
  ]
  const usual = filter.levels.join() === USUAL.join()
  const all = filter.levels.length === LEVELS.length
  const levels = (): Entry[] => [
    { label: 'All but reading this log', checked: usual, do: () => desk.look({ levels: USUAL }) },
    { label: 'All', checked: all, do: () => desk.look({ levels: LEVELS }) },
    '-',
    { label: 'Warnings and errors', checked: filter.levels.join() === 'warn,error', do: () => desk.look({ levels: ['warn', 'error'] }) },
    ...LEVELS.map((level) => ({ label: `Only ${level}`, checked: filter.levels.join() === level, do: () => desk.look({ levels: [level] }) })),
  ]
  const statuses = (): Entry[] => [
    { label: 'Any status', checked: filter.status === '', do: () => desk.look({ status: '' }) },
    '-',
    ...STATUSES.map(({ value, name, note }) => ({ label: name, note: filter.status === value ? `✓ ${note}` : note, checked: filter.status === value, do: () => desk.look({ status: value }) })),
  ]
  return (
    <div class="filters" role="toolbar" aria-label="Filters">
      <MenuButton id="levels" class={usual ? 'chip' : 'chip set'} label="Level" entries={levels}>
        {usual ? 'Level' : all ? 'All levels' : filter.levels.join(', ')}
      </MenuButton>
      <MenuButton id="statuses" class={filter.status ? 'chip set' : 'chip'} label="Status" entries={statuses}>
        {filter.status || 'Status'}
      </MenuButton>
      <MenuButton id="services" class={filter.service ? 'chip set' : 'chip'} label="Service" entries={() => one('service', filter.service, desk.services.value, (service) => desk.look({ service }))}>
        {filter.service || 'Service'}
      </MenuButton>
      <MenuButton id="methods" class={filter.method ? 'chip set' : 'chip'} label="Method" entries={() => one('method', filter.method, desk.methods.value, (method) => desk.look({ method }))}>
        {filter.method || 'Method'}
      </MenuButton>
      {!isUsual(filter) && (
        <button type="button" id="everything" class="button plain" onClick={() => desk.look(EVERYTHING)}>
          Clear filters
        </button>
      )}
    </div>
  )
}

/** The line is lost: since when, and when it is tried again. */
function Away() {
  const line = desk.line.value
  const [now, setNow] = useState(Date.now)
  useEffect(() => {
    if (line.is !== 'waiting') return
    setNow(Date.now())
    const timer = setInterval(() => setNow(Date.now()), 500)
    return () => clearInterval(timer)
  }, [line])
  if (line.is === 'gone')
    return (
      <div class="banner bad" role="status" id="gone">
        <span class="spread">{line.why}</span>
      </div>
    )
  if (line.is !== 'waiting') return null
  const seconds = Math.ceil((line.until - now) / 1000)
  return (
    <div class="banner" role="status" id="away">
      <span class="spinner" />
      <span class="spread cut">
        {line.why} {seconds > 1 ? `Trying again in ${seconds} s.` : 'Trying again…'}
      </span>
      <button type="button" class="button" onClick={desk.retry}>
        Try now
      </button>
    </div>
  )
}

function Body() {
  const status = desk.status.value
  const rows = desk.rows.value
  if (rows.length > 0) return <List />
  if (status.is === 'loading')
    return (
      <div class="empty" aria-busy="true">
        <span class="spinner" />
      </div>
    )
  if (status.is === 'failed')
    return (
      <div class="empty" id="failed">
        <Icon of={CircleAlert} size={36} />
        <h2>The log cannot be read</h2>
        <p>{status.why}</p>
        <button type="button" class="button" onClick={() => void desk.load()}>
          Try again
        </button>
      </div>
    )
  const usual = isUsual(desk.filter.value)
  return (
    <div class="empty" id="nothing">
      <Icon of={usual ? ScrollText : SearchX} size={36} />
      <h2>{usual ? 'No requests yet' : 'Nothing fits these filters'}</h2>
      <p>{usual ? 'Requests to this computer appear here as they come.' : 'New requests that fit appear here as they come.'}</p>
      {!usual && (
        <button type="button" class="button" onClick={() => desk.look(EVERYTHING)}>
          Clear filters
        </button>
      )}
    </div>
  )
}
