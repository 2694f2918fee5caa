import { signal } from '@preact/signals'
import { AArrowDown, AArrowUp, Accessibility, ALargeSmall, ArrowDown, ArrowUp, Bell, Clipboard, Copy, EllipsisVertical, Eraser, Eye, Plus, RotateCcw, Search, SquareX, Terminal, TextSelect, Upload, X } from 'lucide'
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks'
import { IconButton } from '../shared/button.tsx'
import { DialogHost } from '../shared/dialog.tsx'
import { dropped, picked } from '../shared/found.ts'
import { ago, count, instant } from '../shared/format.ts'
import { Icon } from '../shared/icon.tsx'
import { MenuButton, MenuHost, type Entry } from '../shared/menu.tsx'
import { PageMark } from '../shared/pages.tsx'
import { ToastHost } from '../shared/toast.tsx'
import * as desk from './desk.ts'
import { KeyBar } from './keybar.tsx'
import { label, refresh, sessions } from './sessions.ts'

const APPLE = /Mac|iPhone|iPad/.test(navigator.platform)
const coarse = matchMedia('(pointer: coarse)')
const fingers = signal(coarse.matches)
coarse.addEventListener('change', () => (fingers.value = coarse.matches))

/** Changes of the line shorter than this are not worth a word. */
const PATIENCE_MS = 700

export function App() {
  const place = useRef<HTMLDivElement>(null)
  useEffect(() => {
    if (place.current) void desk.open(place.current, chord)
  }, [])
  const ground = desk.ground.value
  return (
    <>
      {desk.options.value.toolbar && <Bar />}
      <main class="stage" style={ground ? { background: ground } : {}} onPointerDown={(event) => event.target === event.currentTarget && desk.focus()}>
        <div ref={place} class="screen" aria-label="Terminal; Ctrl F6 goes to the toolbar" />
        {desk.finding.value && <Find />}
        <Line />
        <Drop />
      </main>
      {fingers.value && !desk.readonly.value && <KeyBar send={desk.type} paste={() => void desk.paste()} application={desk.application} />}
      <MenuHost />
      <DialogHost />
      <ToastHost />
    </>
  )
}

/** Chords of the page: those that terminals have everywhere, and that shells never see. */
function chord(event: KeyboardEvent): boolean {
  const page = APPLE ? event.metaKey && !event.ctrlKey : event.ctrlKey && event.shiftKey
  if (event.ctrlKey && event.key === 'Insert') {
    void desk.copy()
    return true
  }
  const size = (APPLE ? event.metaKey : event.ctrlKey) && !event.altKey
  if (size && (event.key === '+' || event.key === '=')) {
    desk.resizeFont(desk.font.value + 1)
    return true
  }
  if (size && event.key === '-' && !event.shiftKey) {
    desk.resizeFont(desk.font.value - 1)
    return true
  }
  if (size && event.key === '0') {
    desk.usualFont()
    return true
  }
  if (event.ctrlKey && event.key === 'F6') {
    document.getElementById('switcher')?.focus()
    return true
  }
  if (!page) return false
  switch (event.key.toLowerCase()) {
    case 'c':
      if (APPLE && !desk.selection()) return false
      void desk.copy()
      return true
    case 'f':
      desk.finding.value = true
      return true
    case 'k':
      desk.clear()
      return true
    default:
      return false
  }
}

const keys = (letter: string) => (APPLE ? `⌘${letter}` : `Ctrl+Shift+${letter}`)

function Bar() {
  return (
    <header class="bar">
      <PageMark slug="terminal" />
      <span class="bar-rule" />
      <Switcher />
      <span class="title cut spread" title={desk.title.value}>
        {desk.title.value}
      </span>
      {desk.ringing.value && (
        <span class="bell" role="status">
          <Icon of={Bell} />
          <span class="away">Bell</span>
        </span>
      )}
      {desk.readonly.value && (
        <span class="badge" id="readonly">
          <Icon of={Eye} size={13} /> Read only
        </span>
      )}
      <Status />
      <IconButton id="new-session" icon={Plus} label="New session" onClick={() => void desk.fresh()} />
      <MenuButton id="more" icon={EllipsisVertical} label="More" entries={more} />
    </header>
  )
}

function more(): Entry[] {
  const chosen = desk.selection() !== ''
  const entries: Entry[] = [{ label: 'Copy', icon: Copy, keys: keys('C'), disabled: !chosen, do: () => void desk.copy() }]
  if (!desk.readonly.value)
    entries.push({ label: 'Paste', icon: Clipboard, keys: keys('V'), do: () => void desk.paste() }, { label: 'Send files…', icon: Upload, do: pickFiles })
  entries.push(
    { label: 'Select all', icon: TextSelect, do: desk.selectAll },
    { label: 'Find', icon: Search, keys: keys('F'), do: () => (desk.finding.value = true) },
    { label: 'Clear what is above', icon: Eraser, keys: keys('K'), do: desk.clear },
    '-',
    { label: 'Larger text', icon: AArrowUp, keys: APPLE ? '⌘+' : 'Ctrl +', do: () => desk.resizeFont(desk.font.value + 1) },
    { label: 'Smaller text', icon: AArrowDown, keys: APPLE ? '⌘−' : 'Ctrl −', do: () => desk.resizeFont(desk.font.value - 1) },
    { label: 'Usual size', icon: ALargeSmall, keys: APPLE ? '⌘0' : 'Ctrl 0', do: desk.usualFont },
    { label: 'Screen reader support', icon: Accessibility, checked: desk.reader.value, do: () => desk.setReader(!desk.reader.value) },
  )
  const id = desk.id.value
  if (id) entries.push('-', { label: `Close session ${id}`, icon: SquareX, danger: true, do: () => void desk.close(id) })
  return entries
}

/** Which session this is, and the way to the others. */
function Switcher() {
  const id = desk.id.value
  const entries = (): Entry[] => {
    const now = Date.now()
    void refresh()
    const others = sessions.value.some((session) => session.terminal_id === id) || !id ? sessions.value : [{ terminal_id: id, shell: desk.shell.value }, ...sessions.value]
    return [
      'Sessions',
      ...others.map((session) => {
        const age = ago(instant(session.created_at ? Date.parse(session.created_at) : null), now)
        return {
          label: `${session.terminal_id} · ${label(session)}`,
          icon: Terminal,
          ...(session.terminal_id === id ? {} : { note: age }),
          checked: session.terminal_id === id,
          do: () => desk.go(session.terminal_id),
        }
      }),
      '-',
      { label: 'New session', icon: Plus, do: () => void desk.fresh() },
    ]
  }
  return (
    <MenuButton id="switcher" class="switcher" label={id ? `Session ${id}: switch` : 'Sessions'} entries={entries}>
      <span class="cut">{id ? `Session ${id}` : 'Session'}</span>
    </MenuButton>
  )
}

/** A dot, and a word where there is room. */
function Status() {
  const state = desk.state.value
  const [mark, word] =
    state.is === 'open'
      ? ['good', 'Connected']
      : state.is === 'connecting'
        ? ['wait', 'Connecting']
        : state.is === 'waiting'
          ? ['wait', 'Reconnecting']
          : state.is === 'ended'
            ? ['', 'Ended']
            : ['bad', 'Closed']
  return (
    <span class="status" id="status" data-state={state.is} title={word}>
      <span class={`dot ${mark}`} />
      <span class="status-word" role="status">
        {word}
      </span>
    </span>
  )
}

/** What stands in the way, over the screen so that the shell keeps its size. */
function Line() {
  const state = desk.state.value
  const [now, setNow] = useState(Date.now)
  const [late, setLate] = useState(false)
  const away = state.is === 'waiting' || state.is === 'connecting'

  useEffect(() => {
    if (!away) {
      setLate(false)
      return
    }
    const timer = setTimeout(() => setLate(true), PATIENCE_MS)
    return () => clearTimeout(timer)
  }, [away])
  useEffect(() => {
    if (state.is !== 'waiting') return
    setNow(Date.now())
    const timer = setInterval(() => setNow(Date.now()), 500)
    return () => clearInterval(timer)
  }, [state])

  if (state.is === 'open') return null
  if (state.is === 'ended' || state.is === 'refused')
    return (
      <div class={state.is === 'ended' ? 'line' : 'line bad'} role="status">
        <span class="spread">{state.why}</span>
        <button type="button" id="restart" class="button main" onClick={desk.retry}>
          <Icon of={RotateCcw} size={15} />
          {state.is === 'ended' ? 'Start again' : 'Try again'}
        </button>
      </div>
    )
  if (!late) return null
  const seconds = state.is === 'waiting' ? Math.ceil((state.until - now) / 1000) : 0
  return (
    <div class="line wait" role="status">
      <span class="spinner" />
      <span class="spread">
        {state.is === 'waiting' ? state.why : 'Connecting…'}
        {seconds > 1 && <span class="line-more"> Trying again in {seconds} s.</span>}
      </span>
      <button type="button" id="reconnect" class="button" onClick={desk.retry}>
        Reconnect now
      </button>
    </div>
  )
}

/** Have files chosen in the browser's dialog, which is all a phone has. */
function pickFiles(): void {
  const input = document.createElement('input')
  input.type = 'file'
  input.multiple = true
  input.addEventListener('change', () => {
    if (input.files?.length) void desk.give(picked(input.files), 'drop', null)
  })
  input.click()
}

/** Takes files that are dropped or pasted, and says so. */
function Drop() {
  const [over, setOver] = useState(false)
  useEffect(() => {
    const carries = (event: DragEvent): boolean => !desk.readonly.value && (event.dataTransfer?.types.includes('Files') ?? false)
    const move = (event: DragEvent): void => {
      if (!carries(event)) return
      event.preventDefault()
      setOver(true)
    }
    const leave = (event: DragEvent): void => {
      // out of the window, not into a part of it
      if (event.relatedTarget === null) setOver(false)
    }
    const drop = (event: DragEvent): void => {
      setOver(false)
      if (!carries(event) || !event.dataTransfer) return
      event.preventDefault()
      const point = { x: event.clientX, y: event.clientY }
      void dropped(event.dataTransfer).then((found) => desk.give(found, 'drop', point))
    }
    const paste = (event: ClipboardEvent): void => {
      const files = event.clipboardData?.files
      if (!files?.length || event.clipboardData?.types.includes('text/plain')) return
      event.preventDefault()
      event.stopPropagation()
      void desk.give(picked(files), 'paste', null)
    }
    addEventListener('dragenter', move)
    addEventListener('dragover', move)
    addEventListener('dragleave', leave)
    addEventListener('drop', drop)
    addEventListener('paste', paste, true)
    return () => {
      removeEventListener('dragenter', move)
      removeEventListener('dragover', move)
      removeEventListener('dragleave', leave)
      removeEventListener('drop', drop)
      removeEventListener('paste', paste, true)
    }
  }, [])
  const sending = desk.sending.value
  if (sending)
    return (
      <div class="line" role="status" id="sending">
        <span class="spread">
          Sending {count(sending.files, 'file')}: {Math.floor(sending.part * 100)} %
        </span>
        <button type="button" class="button" onClick={sending.stop}>
          Stop
        </button>
      </div>
    )
  if (!over) return null
  return (
    <div class="drop-note">
      <Icon of={Upload} size={28} />
      Drop to give the files to this terminal
    </div>
  )
}

function Find() {
  const [text, setText] = useState('')
  const [none, setNone] = useState(false)
  const field = useRef<HTMLInputElement>(null)
  useLayoutEffect(() => field.current?.focus(), [])
  const look = (what: string, back: boolean) => void desk.find(what, back).then((found) => setNone(!found && what !== ''))
  return (
    <form
      class="find"
      role="search"
      onSubmit={(event) => {
        event.preventDefault()
        look(text, true)
      }}
      onKeyDown={(event) => {
        if (event.key === 'Escape') desk.endFind()
        if (event.key === 'Enter' && event.shiftKey) {
          event.preventDefault()
          look(text, false)
        }
      }}
    >
      <input
        ref={field}
        class="input"
        type="text"
        placeholder="Find in the output"
        aria-label="Find in the output"
        aria-invalid={none}
        value={text}
        onInput={(event) => {
          setText(event.currentTarget.value)
          look(event.currentTarget.value, true)
        }}
      />
      <IconButton icon={ArrowUp} label="Previous match" onClick={() => look(text, true)} />
      <IconButton icon={ArrowDown} label="Next match" onClick={() => look(text, false)} />
      <IconButton icon={X} label="Close" onClick={desk.endFind} />
    </form>
  )
}
