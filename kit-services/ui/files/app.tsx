import { signal } from '@preact/signals'
import {
  ArrowDownAZ,
  ChevronRight,
  ClipboardPaste,
  Copy,
  Download,
  EllipsisVertical,
  Eye,
  EyeOff,
  FilePlus,
  FolderInput,
  FolderPlus,
  FolderUp,
  HardDrive,
  House,
  Keyboard,
  Link,
  PanelRight,
  Pencil,
  RefreshCw,
  Scissors,
  Search,
  SquareTerminal,
  TextSelect,
  Trash2,
  Upload,
  X,
} from 'lucide'
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks'
import { IconButton } from '../shared/button.tsx'
import { DialogHost, ask } from '../shared/dialog.tsx'
import { count, size } from '../shared/format.ts'
import { dropped, picked } from '../shared/found.ts'
import { Icon } from '../shared/icon.tsx'
import { MenuButton, MenuHost, showMenu, type Entry } from '../shared/menu.tsx'
import { PageMark } from '../shared/pages.tsx'
import { ToastHost } from '../shared/toast.tsx'
import type { By, Item } from './listing.ts'
import { hashOf, trail } from './paths.ts'
import { Preview } from './preview.tsx'
import * as shelf from './shelf.ts'
import { Table } from './table.tsx'
import { Transfers } from './transfers.tsx'

const APPLE = /Mac|iPhone|iPad/.test(navigator.platform)
const mod = (key: string) => (APPLE ? `⌘${key}` : `Ctrl+${key}`)

export const seeking = signal(false)

export function App() {
  useEffect(() => {
    void shelf.open()
    const save = (event: KeyboardEvent) => {
      if (event.key.toLowerCase() !== 's' || !(event.ctrlKey || event.metaKey) || event.altKey || event.shiftKey) return
      const button = document.getElementById('save')
      if (!button) return
      event.preventDefault()
      button.click()
    }
    addEventListener('keydown', save)
    return () => removeEventListener('keydown', save)
  }, [])
  return (
    <>
      <Bar />
      <Away />
      <div class="body">
        <section class="browser" aria-label="Files">
          <Tools />
          <Drop>
            <Table menu={itemMenu} ground={groundMenu} />
          </Drop>
          <Foot />
        </section>
        {shelf.shown.value && <Preview key={shelf.shown.value} path={shelf.shown.value} />}
      </div>
      <Transfers />
      <MenuHost />
      <DialogHost />
      <ToastHost />
    </>
  )
}

function Bar() {
  return (
    <header class="bar">
      <PageMark slug="files" />
      <span class="bar-rule" />
      <Trail />
      <Filter />
      <IconButton id="reload" icon={RefreshCw} label="Refresh" class={shelf.busy.value ? 'turning' : ''} onClick={() => void shelf.reload()} />
      <MenuButton id="more" icon={EllipsisVertical} label="More" entries={more} />
    </header>
  )
}

/** Where we are; the way up. Long ways lose their middle. */
function Trail() {
  const path = shelf.dir.value
  const steps = trail(path)
  const box = useRef<HTMLElement>(null)
  const [kept, setKept] = useState(steps.length)

  useLayoutEffect(() => {
    const nav = box.current
    if (!nav) return
    setKept(steps.length)
    const fit = () => {
      const over = nav.scrollWidth - nav.clientWidth
      if (over > 1) setKept((now) => Math.max(1, now - 1))
    }
    fit()
    const observer = new ResizeObserver(() => setKept(steps.length))
    observer.observe(nav)
    return () => observer.disconnect()
  }, [path])
  useLayoutEffect(() => {
    const nav = box.current
    if (nav && nav.scrollWidth - nav.clientWidth > 1 && kept > 1) setKept(kept - 1)
  }, [kept, path])

  const missing = steps.slice(1, Math.max(1, steps.length - kept + 1))
  const visible = missing.length > 0 ? [steps[0], ...steps.slice(missing.length + 1)] : steps
  return (
    <nav ref={box} class={`trail spread${seeking.value ? ' seeking' : ''}`} aria-label="Folder">
      {visible.map((step, n) =>
        step ? (
          <span key={step.path} class={`step${n === visible.length - 1 ? ' last' : ''}`}>
            {n > 0 && <Icon of={ChevronRight} size={14} class="faint" />}
            {n === 1 && missing.length > 0 && (
              <>
                <button
                  type="button"
                  class="crumb"
                  aria-label="Folders between"
                  aria-haspopup="menu"
                  onClick={(event) =>
                    showMenu(
                      'Folders between',
                      event.currentTarget.getBoundingClientRect(),
                      missing.map((one) => ({ label: one.name, do: () => shelf.go(one.path) })),
                    )
                  }
                >
                  …
                </button>
                <Icon of={ChevronRight} size={14} class="faint" />
              </>
            )}
            <a
              class="crumb"
              href={hashOf(step.path, true)}
              aria-current={step.path === path ? 'page' : undefined}
              title={step.path}
              data-drop={step.path}
              onClick={(event) => {
                if (event.metaKey || event.ctrlKey || event.shiftKey) return
                event.preventDefault()
                shelf.go(step.path)
              }}
            >
              {step.path === '/' ? <Icon of={HardDrive} size={15} /> : null}
              {step.path === '/' ? <span class={visible.length > 1 ? 'away' : ''}>Computer</span> : <span class="cut">{step.name}</span>}
            </a>
          </span>
        ) : null,
      )}
    </nav>
  )
}

function Filter() {
  const field = useRef<HTMLInputElement>(null)
  // at once: the next letter belongs to the filter
  useLayoutEffect(() => {
    if (seeking.value) field.current?.focus()
  }, [seeking.value])
  const leave = () => {
    shelf.filter.value = ''
    seeking.value = false
    document.getElementById('rows')?.focus()
  }
  if (!seeking.value && !shelf.filter.value) return <IconButton id="filter" icon={Search} label="Filter by name (/)" onClick={() => (seeking.value = true)} />
  return (
    <label class="filter">
      <Icon of={Search} size={15} />
      <input
        ref={field}
        id="filter-text"
        type="text"
        placeholder="Filter by name"
        aria-label="Filter by name"
        spellcheck={false}
        autocomplete="off"
        autocapitalize="off"
        value={shelf.filter.value}
        onInput={(event) => (shelf.filter.value = event.currentTarget.value)}
        onKeyDown={(event) => {
          event.stopPropagation()
          if (event.key === 'Escape') leave()
          if (event.key === 'Enter' || event.key === 'ArrowDown') {
            event.preventDefault()
            const first = shelf.rows.value[0]
            if (first) shelf.choose(first.name)
            document.getElementById('rows')?.focus()
          }
        }}
      />
      <button type="button" class="filter-clear" aria-label="Clear the filter" onClick={leave}>
        <Icon of={X} size={15} />
      </button>
    </label>
  )
}

function more(): Entry[] {
  const { by, down } = shelf.order.value
  const sort = (label: string, key: By): Entry => ({ label, icon: ArrowDownAZ, checked: by === key, ...(by === key ? { note: down ? '↓' : '↑' } : {}), do: () => shelf.setOrder(key) })
  const terminal = shelf.terminalAt(shelf.dir.value)
  return [
    { label: shelf.showHidden.value ? 'Hide hidden files' : 'Show hidden files', icon: shelf.showHidden.value ? EyeOff : Eye, keys: mod('H'), do: () => shelf.setHidden(!shelf.showHidden.value) },
    { label: 'Home folder', icon: House, do: () => shelf.go('/home/user') },
    ...(terminal ? [{ label: 'Terminal here', icon: SquareTerminal, href: terminal }] : []),
    { label: 'Copy path of this folder', icon: Link, do: () => void shelf.copyText(shelf.dir.value, 'Path') },
    'Sort by',
    sort('Name', 'name'),
    sort('Size', 'size'),
    sort('Modified', 'at'),
    '-',
    { label: 'Keys', icon: Keyboard, keys: '?', do: () => void help() },
  ]
}

const KEYS: [string, string][] = [
  ['↑ ↓', 'Go through the list (with Shift: select)'],
  ['Enter', 'Open'],
  ['Backspace', 'Up one folder'],
  ['Space', 'Select, or leave out'],
  ['F2', 'Rename'],
  ['Delete', 'Delete'],
  [`${mod('A')}`, 'Select all'],
  [`${mod('C')}  ${mod('X')}  ${mod('V')}`, 'Copy, cut, paste'],
  [mod('H'), 'Show or hide hidden files'],
  ['/', 'Filter by name'],
  ['A letter', 'Go to the next name that begins so'],
  [mod('S'), 'Save the open file'],
  ['Escape', 'Close what is open'],
]

export async function help(): Promise<void> {
  await ask({
    title: 'Keys',
    wide: true,
    body: (
      <dl class="keys">
        {KEYS.map(([key, what]) => (
          <div key={key}>
            <dt>{key}</dt>
            <dd>{what}</dd>
          </div>
        ))}
      </dl>
    ),
    choices: [],
  })
}

export function itemMenu(list: Item[]): Entry[] {
  const [first] = list
  if (!first) return groundMenu()
  const one = list.length === 1
  const terminal = one && first.folder ? shelf.terminalAt(first.path) : null
  const files = list.every((item) => !item.folder)
  return [
    ...(one ? [{ label: 'Open', icon: first.folder ? FolderInput : PanelRight, keys: 'Enter', do: () => shelf.openItem(first) }] : [count(list.length, 'item')]),
    ...(terminal ? [{ label: 'Terminal here', icon: SquareTerminal, href: terminal }] : []),
    ...(files || shelf.archives.value ? [{ label: first.folder && one ? 'Download as zip' : 'Download', icon: Download, do: () => shelf.download(list) }] : []),
    '-',
    { label: 'Copy', icon: Copy, keys: mod('C'), do: () => shelf.take(list, false) },
    { label: 'Cut', icon: Scissors, keys: mod('X'), do: () => shelf.take(list, true) },
    { label: 'Copy to…', icon: Copy, do: () => void shelf.transferTo(list, false) },
    { label: 'Move to…', icon: FolderInput, do: () => void shelf.transferTo(list, true) },
    ...(one
      ? [
          { label: 'Rename…', icon: Pencil, keys: 'F2', do: () => void shelf.rename(first) },
          { label: 'Copy path', icon: Link, do: () => void shelf.copyText(first.path, 'Path') },
        ]
      : []),
    '-',
    { label: 'Delete…', icon: Trash2, keys: 'Del', danger: true, do: () => void shelf.removeAll(list) },
  ]
}

export function groundMenu(): Entry[] {
  const clip = shelf.clip.value
  return [
    { label: 'Upload files…', icon: Upload, do: () => pick(false) },
    { label: 'Upload a folder…', icon: FolderUp, do: () => pick(true) },
    { label: 'New folder…', icon: FolderPlus, do: () => void shelf.newFolder() },
    { label: 'New file…', icon: FilePlus, do: () => void shelf.newFile() },
    '-',
    { label: clip ? `Paste ${count(clip.paths.length, 'item')}` : 'Paste', icon: ClipboardPaste, keys: mod('V'), disabled: !clip, do: () => void shelf.paste() },
    { label: 'Select all', icon: TextSelect, keys: mod('A'), do: shelf.chooseAll },
  ]
}

/** The browser's dialog for files, or for a folder. */
function pick(folder: boolean): void {
  const input = document.createElement('input')
  input.type = 'file'
  input.multiple = true
  if (folder) input.webkitdirectory = true
  input.onchange = () => {
    if (input.files?.length) void shelf.upload(picked(input.files))
  }
  input.click()
}

function Tools() {
  const chosen = shelf.chosen.value
  const [first] = chosen
  const clip = shelf.clip.value
  if (first)
    return (
      <div class="tools chosen" role="toolbar" aria-label="Selected files">
        <IconButton id="unchoose" icon={X} label="Clear the selection" onClick={shelf.chooseNone} />
        <span class="tools-count" role="status">
          {chosen.length.toLocaleString()} selected
        </span>
        <span class="tools-size cut spread">{total(chosen)}</span>
        {(shelf.archives.value || chosen.every((item) => !item.folder)) && <ToolButton id="download" icon={Download} label="Download" do={() => shelf.download(chosen)} />}
        {chosen.length === 1 && <ToolButton id="rename" icon={Pencil} label="Rename" do={() => void shelf.rename(first)} />}
        <ToolButton id="move" icon={FolderInput} label="Move" do={() => void shelf.transferTo(chosen, true)} />
        <ToolButton id="copy" icon={Copy} label="Copy" do={() => void shelf.transferTo(chosen, false)} />
        <ToolButton id="delete" icon={Trash2} label="Delete" danger do={() => void shelf.removeAll(chosen)} />
      </div>
    )
  return (
    <div class="tools" role="toolbar" aria-label="Folder">
      <button type="button" id="upload" class="button main" disabled={!shelf.writable.value} onClick={() => pick(false)}>
        <Icon of={Upload} size={15} />
        Upload
      </button>
      <ToolButton id="new-folder" icon={FolderPlus} label="New folder" do={() => void shelf.newFolder()} />
      <ToolButton id="new-file" icon={FilePlus} label="New file" do={() => void shelf.newFile()} />
      <span class="spread" />
      {clip && (
        <>
          <ToolButton id="paste" icon={ClipboardPaste} label={`${clip.cut ? 'Move' : 'Paste'} ${count(clip.paths.length, 'item')} here`} do={() => void shelf.paste()} />
          <IconButton icon={X} label="Forget what was copied" onClick={() => (shelf.clip.value = null)} />
        </>
      )}
    </div>
  )
}

function ToolButton({ id, icon, label, danger, do: act }: { id: string; icon: Parameters<typeof Icon>[0]['of']; label: string; danger?: boolean; do: () => void }) {
  return (
    <button type="button" id={id} class={`button plain tool${danger ? ' tool-danger' : ''}`} title={label} aria-label={label} onClick={act}>
      <Icon of={icon} size={16} />
      <span class="tool-word">{label}</span>
    </button>
  )
}

function total(list: readonly Item[]): string {
  const files = list.filter((item) => !item.folder)
  return files.length > 0 ? size(files.reduce((sum, item) => sum + (item.size ?? 0), 0)) : ''
}

function Foot() {
  const rows = shelf.rows.value
  const folders = rows.filter((item) => item.folder).length
  if (shelf.status.value.is !== 'ready') return null
  const files = rows.length - folders
  const parts = [folders > 0 ? count(folders, 'folder') : '', files > 0 ? `${count(files, 'file')}, ${total(rows)}` : ''].filter(Boolean)
  return (
    <footer class="foot">
      <span class="cut spread" role="status">
        {parts.join(' · ') || 'Nothing here'}
        {shelf.partial.value && ' shown, and there are more'}
        {shelf.filter.value && ` match “${shelf.filter.value}”`}
      </span>
      {shelf.hiddenCount.value > 0 && (
        <button type="button" class="foot-link" onClick={() => shelf.setHidden(true)}>
          {count(shelf.hiddenCount.value, 'hidden entry', 'hidden entries')}
        </button>
      )}
    </footer>
  )
}

function Away() {
  const away = shelf.away.value
  const [now, setNow] = useState(Date.now)
  useEffect(() => {
    if (!away) return
    setNow(Date.now())
    const timer = setInterval(() => setNow(Date.now()), 500)
    return () => clearInterval(timer)
  }, [away])
  if (!away) return null
  const seconds = Math.ceil((away.until - now) / 1000)
  return (
    <div class="banner" role="status" id="away">
      <span class="spinner" />
      <span class="spread cut">
        {away.why} {seconds > 1 ? `Trying again in ${seconds} s.` : 'Trying again…'}
      </span>
      <button type="button" class="button" onClick={() => void shelf.reload()}>
        Try now
      </button>
    </div>
  )
}

/** Takes files dropped from outside, and rows dropped on folders. */
function Drop({ children }: { children: preact.ComponentChildren }) {
  const [over, setOver] = useState<string | null>(null)
  const depth = useRef(0)
  const accepts = (event: DragEvent) => event.dataTransfer?.types.includes('Files') || event.dataTransfer?.types.includes(ROWS)
  const inner = (event: DragEvent) => event.dataTransfer?.types.includes(ROWS) ?? false
  const target = (event: DragEvent) => (event.target instanceof Element ? event.target.closest<HTMLElement>('[data-drop]')?.dataset['drop'] : undefined) ?? null

  useEffect(() => {
    const enter = (event: DragEvent) => {
      if (!accepts(event)) return
      depth.current++
    }
    const move = (event: DragEvent) => {
      if (!accepts(event) || document.querySelector('dialog[open]')) return
      const at = target(event)
      if (inner(event) && at === null) return setOver(null)
      event.preventDefault()
      if (event.dataTransfer) event.dataTransfer.dropEffect = inner(event) ? (event.ctrlKey || event.altKey ? 'copy' : 'move') : 'copy'
      setOver(at ?? shelf.dir.value)
    }
    const leave = () => {
      if (--depth.current <= 0) {
        depth.current = 0
        setOver(null)
      }
    }
    const drop = (event: DragEvent) => {
      depth.current = 0
      setOver(null)
      if (!accepts(event) || !event.dataTransfer) return
      event.preventDefault()
      const at = target(event)
      if (inner(event)) {
        const paths = JSON.parse(event.dataTransfer.getData(ROWS)) as string[]
        if (at !== null) void shelf.transfer(paths, at, !(event.ctrlKey || event.altKey))
        return
      }
      void dropped(event.dataTransfer).then((found) => shelf.upload(found, at ?? shelf.dir.value))
    }
    addEventListener('dragenter', enter)
    addEventListener('dragover', move)
    addEventListener('dragleave', leave)
    addEventListener('drop', drop)
    return () => {
      removeEventListener('dragenter', enter)
      removeEventListener('dragover', move)
      removeEventListener('dragleave', leave)
      removeEventListener('drop', drop)
    }
  }, [])

  useLayoutEffect(() => {
    for (const element of document.querySelectorAll<HTMLElement>('[data-drop]')) element.classList.toggle('drop-here', element.dataset['drop'] === over && over !== shelf.dir.value)
  })

  return (
    <div class={`drop${over === shelf.dir.value ? ' over' : ''}`}>
      {children}
      {over === shelf.dir.value && (
        <div class="drop-note">
          <Icon of={Upload} size={28} />
          Drop to upload here
        </div>
      )}
    </div>
  )
}

/** The kind of thing that rows are while they are dragged. */
export const ROWS = 'application/x-hoody-paths'
