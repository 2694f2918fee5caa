// The side pane: shows a file, and lets small text be edited.
import { ArrowLeft, Download, FileQuestion, Pencil, Save, X } from 'lucide'
import { useEffect, useRef, useState } from 'preact/hooks'
import { IconButton } from '../shared/button.tsx'
import { because, url, words } from '../shared/call.ts'
import { ask } from '../shared/dialog.tsx'
import { instant, size, when } from '../shared/format.ts'
import { Icon } from '../shared/icon.tsx'
import { complain, tell } from '../shared/toast.tsx'
import type { Editor } from './editor.ts'
import { kindOf } from './kinds.ts'
import type { Item } from './listing.ts'
import { base, contentsUrl } from './paths.ts'
import { Changed, read, stat, write, type Facts } from './service.ts'
import * as shelf from './shelf.ts'
import { textOf, type Text } from './text.ts'

/** Text up to here can be edited. */
const EDIT_BYTES = 2 << 20
/** Of larger text, this much is shown. */
const TASTE_BYTES = 256 << 10
/** Documents larger than this are not loaded for a look. */
const PDF_BYTES = 48 << 20
const IMAGE_BYTES = 64 << 20

export function Preview({ path }: { path: string }) {
  const name = base(path)
  const item = shelf.items.value.find((one) => one.path === path)
  const kind = kindOf(name, false)
  const [facts, setFacts] = useState<Facts | null>(null)
  const [wide, setWide] = useState(() => Number(sessionStorageGet('hoody.files.pane')) || 0)
  const pane = useRef<HTMLElement>(null)

  useEffect(() => {
    let gone = false
    stat(path).then(
      (found) => !gone && setFacts(found),
      () => undefined,
    )
    return () => {
      gone = true
    }
  }, [path, item?.at, item?.size])

  const download = () => shelf.download([item ?? { name, path, folder: false, link: false, size: null, at: null }])
  const bytes = item?.size ?? facts?.size ?? 0
  const at = item?.at ?? facts?.at ?? null
  return (
    <aside ref={pane} class="pane" aria-label={name} style={wide ? { '--pane': `${wide}px` } : {}}>
      <Grip
        pane={pane}
        moved={(width) => {
          setWide(width)
          sessionStorageSet('hoody.files.pane', String(width))
        }}
      />
      <header class="pane-head">
        <IconButton class="pane-back" icon={ArrowLeft} label="Back to the list" onClick={() => void shelf.hide()} />
        <Icon of={kind.icon} size={18} class={`tint-${kind.tint}`} />
        <span class="pane-words spread">
          <span class="pane-name cut" title={path}>
            {name}
            {shelf.unsaved.value && <span class="unsaved" title="Not saved" />}
          </span>
          <span class="pane-facts cut">
            {size(bytes)} · {when(instant(at), Date.now())}
            {facts?.permissions && ` · ${facts.permissions}`}
            {facts?.owner && ` · ${facts.owner}${facts.group && facts.group !== facts.owner ? `:${facts.group}` : ''}`}
          </span>
        </span>
        <span id="pane-tools" class="pane-tools" />
        <IconButton id="pane-download" icon={Download} label="Download" onClick={download} />
        <IconButton id="pane-close" class="pane-x" icon={X} label="Close" onClick={() => void shelf.hide()} />
      </header>
      <div class="pane-body">
        <Contents path={path} bytes={bytes} show={kind.show} item={item} download={download} />
      </div>
    </aside>
  )
}

interface ContentsProps {
  path: string
  bytes: number
  show: ReturnType<typeof kindOf>['show']
  item: Item | undefined
  download: () => void
}

function Contents({ path, bytes, show, item, download }: ContentsProps) {
  // contents that changed are fetched again, the same ones are not
  const source = `${url(contentsUrl(path)).href}${item?.at ? `?_=${item.at}-${item.size ?? 0}` : ''}`
  switch (show) {
    case 'image':
      return bytes > IMAGE_BYTES ? <Unshown why="This picture is too large to show." download={download} /> : <Picture source={source} name={base(path)} download={download} />
    case 'audio':
      return (
        <div class="media">
          <audio controls preload="metadata" src={source} />
        </div>
      )
    case 'video':
      return (
        <div class="media">
          <video controls preload="metadata" playsInline src={source} />
        </div>
      )
    case 'pdf':
      return <Document path={path} bytes={bytes} download={download} />
    case 'bytes':
      return <Unshown why="There is no way to show this kind of file." download={download} />
    case 'text':
      return <Words path={path} stamp={item ? `${item.at} ${item.size}` : null} download={download} />
  }
}

function Unshown({ why, download }: { why: string; download: () => void }) {
  return (
    <div class="empty">
      <Icon of={FileQuestion} size={36} />
      <h2>No preview</h2>
      <p>{why}</p>
      <button type="button" class="button" onClick={download}>
        <Icon of={Download} size={15} />
        Download
      </button>
    </div>
  )
}

function Picture({ source, name, download }: { source: string; name: string; download: () => void }) {
  const [state, setState] = useState<{ bad: boolean; text: string }>({ bad: false, text: '' })
  if (state.bad) return <Unshown why="This picture cannot be read." download={download} />
  return (
    <figure class="picture">
      <img
        src={source}
        alt={name}
        onError={() => setState({ bad: true, text: '' })}
        onLoad={(event) => setState({ bad: false, text: `${event.currentTarget.naturalWidth} × ${event.currentTarget.naturalHeight}` })}
      />
      <figcaption>{state.text}</figcaption>
    </figure>
  )
}

/** The browser's own reader, fed with bytes that we declare to be a document and nothing else. */
function Document({ path, bytes, download }: { path: string; bytes: number; download: () => void }) {
  const [source, setSource] = useState<string | null>(null)
  const [fault, setFault] = useState<string | null>(null)
  const able = (navigator as Navigator & { pdfViewerEnabled?: boolean }).pdfViewerEnabled !== false && bytes <= PDF_BYTES
  useEffect(() => {
    if (!able) return
    const stop = new AbortController()
    let made: string | null = null
    read(path, PDF_BYTES, stop.signal).then(
      ({ bytes }) => {
        made = URL.createObjectURL(new Blob([bytes], { type: 'application/pdf' }))
        setSource(`${made}#navpanes=0&view=FitH`)
      },
      (error: unknown) => {
        if (!stop.signal.aborted) setFault(words(error))
      },
    )
    return () => {
      stop.abort()
      if (made) URL.revokeObjectURL(made)
    }
  }, [path, able])
  if (!able) return <Unshown why={bytes > PDF_BYTES ? 'This document is too large to show.' : 'This browser does not show documents.'} download={download} />
  if (fault) return <Unshown why={fault} download={download} />
  return source ? <iframe class="document" src={source} title={base(path)} /> : <Waiting />
}

function Waiting() {
  return (
    <div class="empty">
      <span class="spinner" />
    </div>
  )
}

interface Loaded extends Text {
  etag: string | null
  /** Only the beginning is here. */
  more: boolean
  at: number | null
  size: number
}

/** Text: coloured where the language is known, and editable where it is small. */
function Words({ path, stamp, download }: { path: string; stamp: string | null; download: () => void }) {
  const [loaded, setLoaded] = useState<Loaded | null>(null)
  const [fault, setFault] = useState<string | null>(null)
  const [editing, setEditing] = useState(false)
  const [saving, setSaving] = useState(false)
  const [round, setRound] = useState(0)
  const place = useRef<HTMLDivElement>(null)
  const editor = useRef<Editor | null>(null)

  useEffect(() => {
    const stop = new AbortController()
    void (async () => {
      try {
        const facts = await stat(path).catch(() => null)
        const most = facts && facts.size <= EDIT_BYTES ? EDIT_BYTES : TASTE_BYTES
        const { bytes, more, etag } = await read(path, most, stop.signal)
        const text = textOf(bytes, more)
        if (!text) return setFault('These bytes are no text.')
        setLoaded({ ...text, etag: etag && !etag.startsWith('W/') ? etag : null, more, at: facts?.at ?? null, size: facts?.size ?? bytes.length })
      } catch (error) {
        if (!stop.signal.aborted) setFault(words(error))
      }
    })()
    return () => stop.abort()
  }, [path, round])

  // somebody else wrote to it while it is only looked at: show what is there now
  const seen = useRef(stamp)
  useEffect(() => {
    if (stamp === null || stamp === seen.current) return
    seen.current = stamp
    if (!editing) setRound((now) => now + 1)
  }, [stamp, editing])

  const editable = loaded !== null && !loaded.more

  useEffect(() => {
    if (!loaded || !place.current) return
    let gone = false
    const at = place.current
    void import('./editor.ts').then(async ({ open }) => {
      if (gone) return
      const made = await open(at, {
        name: base(path),
        text: loaded.text,
        ends: loaded.ends === '\r\n' ? '\r\n' : '\n',
        changed: (dirty) => (shelf.unsaved.value = dirty),
        save: () => void save(),
        leave: () => document.getElementById('rows')?.focus(),
      })
      if (gone) return made.close()
      editor.current = made
    })
    return () => {
      gone = true
      editor.current?.close()
      editor.current = null
    }
  }, [loaded])

  useEffect(() => editor.current?.editable(editing), [editing])

  const edit = () => {
    if (!loaded || !editable) return
    if (loaded.ends === 'mixed') tell('Line endings in this file are mixed. Saving makes them alike.')
    setEditing(true)
    editor.current?.editable(true)
    editor.current?.focus()
  }

  const state = useRef<Loaded | null>(null)
  state.current = loaded
  const running = useRef(false)

  const save = async (force = false): Promise<void> => {
    const now = state.current
    const there = editor.current
    if (!now || !there || running.current || !(force || shelf.unsaved.value)) return
    running.current = true
    setSaving(true)
    try {
      if (!force && !now.etag) {
        // no validator to send along: compare what the service says about the file
        const facts = await stat(path)
        if (facts.at !== now.at || facts.size !== now.size) throw new Changed('changed')
      }
      const { text, saved } = there.take()
      const etag = await write(path, text, force ? null : now.etag)
      const facts = await stat(path).catch(() => null)
      Object.assign(now, { etag: etag && !etag.startsWith('W/') ? etag : null, at: facts?.at ?? null, size: facts?.size ?? text.length })
      saved()
      tell(`Saved ${base(path)}.`)
      void shelf.reload()
    } catch (error) {
      if (error instanceof Changed) {
        setSaving(false)
        running.current = false
        return conflict()
      }
      complain(because(`Could not save ${base(path)}`, error), { label: 'Try again', do: () => void save(force) })
    } finally {
      setSaving(false)
      running.current = false
    }
  }

  const conflict = async (): Promise<void> => {
    const answer = await ask<'over' | 'reload'>({
      title: `${base(path)} was changed meanwhile`,
      body: 'Something else wrote to this file after you opened it. Saving replaces that; reading again drops your changes.',
      choices: [
        { label: 'Read again', value: 'reload' },
        { label: 'Save mine', value: 'over', kind: 'danger' },
      ],
    })
    if (answer === 'over') await save(true)
    if (answer === 'reload') {
      shelf.unsaved.value = false
      setEditing(false)
      setLoaded(null)
      setRound((now) => now + 1)
    }
  }

  if (fault) return <Unshown why={fault} download={download} />
  if (!loaded) return <Waiting />
  return (
    <>
      <div class="pane-strip">
        {loaded.more ? (
          <span class="cut spread">The first {size(TASTE_BYTES)} of a large file.</span>
        ) : (
          <span class="cut spread">{editing ? (shelf.unsaved.value ? 'Not saved' : 'Editing') : `${lines(loaded.text).toLocaleString()} lines`}</span>
        )}
        {editable && !editing && (
          <button type="button" id="edit" class="button" onClick={edit}>
            <Icon of={Pencil} size={14} />
            Edit
          </button>
        )}
        {editing && (
          <button type="button" id="save" class="button main" disabled={saving || !shelf.unsaved.value} onClick={() => void save()}>
            {saving ? <span class="spinner" /> : <Icon of={Save} size={14} />}
            Save
          </button>
        )}
      </div>
      <div ref={place} class="words">
        <pre class="words-plain">{loaded.text}</pre>
      </div>
    </>
  )
}

function lines(text: string): number {
  if (text === '') return 0
  return text.split(/\r\n?|\n/).length - (/[\r\n]$/.test(text) ? 1 : 0)
}

/** The edge between list and pane. */
function Grip({ pane, moved }: { pane: { current: HTMLElement | null }; moved: (width: number) => void }) {
  const clamp = (width: number) => Math.round(Math.max(320, Math.min(innerWidth - 360, width)))
  const now = () => pane.current?.offsetWidth ?? 0
  return (
    <div
      class="grip"
      role="separator"
      aria-orientation="vertical"
      aria-label="Width of the preview"
      tabIndex={0}
      onKeyDown={(event) => {
        if (event.key === 'ArrowLeft') moved(clamp(now() + 32))
        if (event.key === 'ArrowRight') moved(clamp(now() - 32))
      }}
      onPointerDown={(event) => {
        event.preventDefault()
        const grip = event.currentTarget
        grip.setPointerCapture(event.pointerId)
        const move = (next: PointerEvent) => moved(clamp(innerWidth - next.clientX))
        grip.addEventListener('pointermove', move)
        grip.addEventListener('lostpointercapture', () => grip.removeEventListener('pointermove', move), { once: true })
      }}
    />
  )
}

function sessionStorageGet(key: string): string | null {
  try {
    return sessionStorage.getItem(key)
  } catch {
    return null
  }
}

function sessionStorageSet(key: string, value: string): void {
  try {
    sessionStorage.setItem(key, value)
  } catch {
    // storage is closed to frames of other sites
  }
}
