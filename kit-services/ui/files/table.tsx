// The list of the folder. Only the rows near the window exist.
import { useSignalEffect } from '@preact/signals'
import { ArrowDown, ArrowUp, CircleAlert, EllipsisVertical, FolderOpen, SearchX } from 'lucide'
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks'
import { dialogOpen } from '../shared/dialog.tsx'
import { instant, size, when, whenInFull } from '../shared/format.ts'
import { Icon } from '../shared/icon.tsx'
import { showMenu, type Entry } from '../shared/menu.tsx'
import { window as slice } from '../shared/window.ts'
import { ROWS, help, seeking } from './app.tsx'
import { kindOf } from './kinds.ts'
import type { By, Item } from './listing.ts'
import * as shelf from './shelf.ts'

const ROW = 36
const TALL_ROW = 56
/** Narrower lists show one column. */
const NARROW = 620
/** Letters typed within this time make one word. */
const TYPE_AHEAD_MS = 800
const LONG_PRESS_MS = 450

interface Props {
  menu: (items: Item[]) => Entry[]
  ground: () => Entry[]
}

export function Table({ menu, ground }: Props) {
  const box = useRef<HTMLDivElement>(null)
  const [scrolled, setScrolled] = useState(0)
  const [area, setArea] = useState({ width: 1000, height: 600 })
  const rows = shelf.rows.value
  const status = shelf.status.value
  const coarse = matchMedia('(pointer: coarse)').matches
  const narrow = area.width < NARROW
  const height = narrow || coarse ? TALL_ROW : ROW

  useLayoutEffect(() => {
    const element = box.current
    if (!element) return
    const observer = new ResizeObserver(() => setArea({ width: element.clientWidth, height: element.clientHeight }))
    observer.observe(element)
    return () => observer.disconnect()
  }, [])

  // another folder: where it was left, else the top
  const path = shelf.dir.value
  const filled = status.is === 'ready'
  useLayoutEffect(() => {
    if (!filled || !box.current) return
    box.current.scrollTop = shelf.keptScroll()
    setScrolled(box.current.scrollTop)
    if (!seeking.value && !dialogOpen() && document.activeElement === document.body) box.current.focus({ preventScroll: true })
  }, [path, filled])

  // another order starts at its top
  const { by, down } = shelf.order.value
  useLayoutEffect(() => {
    if (filled && box.current) box.current.scrollTop = 0
  }, [by, down])

  // the row that the keyboard goes to comes into sight
  useSignalEffect(() => {
    const name = shelf.cursor.value
    const at = shelf.rows.peek().findIndex((item) => item.name === name)
    const element = box.current
    if (at < 0 || !element) return
    const top = at * height
    if (top < element.scrollTop) element.scrollTop = top
    else if (top + height > element.scrollTop + element.clientHeight - 4) element.scrollTop = top + height - element.clientHeight + 4
  })

  const { from, to } = slice(rows.length, height, scrolled, area.height)
  const cursorAt = rows.findIndex((item) => item.name === shelf.cursor.value)
  const keys = useKeys(Math.max(1, Math.floor(area.height / height) - 1))

  return (
    <>
      {!narrow && <Head />}
      <div
        ref={box}
        id="rows"
        class={`rows${narrow ? ' narrow' : ''}`}
        role="grid"
        aria-label="Files"
        aria-multiselectable="true"
        aria-rowcount={rows.length}
        aria-busy={status.is === 'loading'}
        aria-activedescendant={cursorAt >= from && cursorAt < to ? `row-${cursorAt}` : undefined}
        tabIndex={0}
        onScroll={(event) => {
          setScrolled(event.currentTarget.scrollTop)
          shelf.keepScroll(event.currentTarget.scrollTop)
        }}
        onKeyDown={keys}
        onPointerDown={(event) => {
          if (event.target === event.currentTarget || (event.target instanceof Element && event.target.classList.contains('rows-inside'))) shelf.chooseNone()
        }}
        onContextMenu={(event) => {
          if (event.target instanceof Element && event.target.closest('.row')) return
          event.preventDefault()
          showMenu('Folder', { x: event.clientX, y: event.clientY }, ground())
        }}
      >
        <div class="rows-inside" style={{ height: `${rows.length * height}px` }}>
          {rows.slice(from, to).map((item, n) => (
            <Row key={item.name} item={item} at={from + n} top={(from + n) * height} height={height} narrow={narrow} menu={menu} />
          ))}
        </div>
        <Instead />
      </div>
    </>
  )
}

function Head() {
  const { by, down } = shelf.order.value
  const some = shelf.chosen.value.length
  const all = some > 0 && some === shelf.rows.value.length
  const column = (key: By, label: string) => (
    <button
      type="button"
      class={`head-cell col-${key}`}
      aria-label={`Sort by ${label.toLowerCase()}`}
      aria-pressed={by === key}
      onClick={() => shelf.setOrder(key)}
    >
      {label}
      {by === key && <Icon of={down ? ArrowDown : ArrowUp} size={13} />}
    </button>
  )
  return (
    <div class="head">
      <span class="col-check">
        <input
          type="checkbox"
          aria-label="Select all"
          checked={all}
          ref={(element) => {
            if (element) element.indeterminate = some > 0 && !all
          }}
          onChange={() => (all ? shelf.chooseNone() : shelf.chooseAll())}
        />
      </span>
      {column('name', 'Name')}
      {column('size', 'Size')}
      {column('at', 'Modified')}
      <span class="col-more" />
    </div>
  )
}

interface RowProps {
  item: Item
  at: number
  top: number
  height: number
  narrow: boolean
  menu: (items: Item[]) => Entry[]
}

function Row({ item, at, top, height, narrow, menu }: RowProps) {
  const kind = kindOf(item.name, item.folder, item.link)
  const chosen = shelf.selected.value.has(item.name)
  const cut = shelf.clip.value?.cut && shelf.clip.value.paths.includes(item.path)
  const press = useRef<{ timer: ReturnType<typeof setTimeout>; fired: boolean } | null>(null)
  const now = Date.now()
  const date = when(instant(item.at), now)

  const openMenu = (at: DOMRect | { x: number; y: number }) => {
    // a finger that asks for a menu has not selected anything
    if (!chosen && !press.current) shelf.choose(item.name)
    showMenu(item.name, at, menu(shelf.selected.value.has(item.name) ? shelf.chosen.value : [item]))
  }
  const classes = ['row', chosen && 'chosen', shelf.cursor.value === item.name && 'cursor', shelf.shown.value === item.path && 'shown', cut && 'cut-row'].filter(Boolean).join(' ')
  return (
    <div
      id={`row-${at}`}
      class={classes}
      role="row"
      aria-rowindex={at + 1}
      aria-selected={chosen}
      style={{ transform: `translateY(${top}px)`, height: `${height}px` }}
      data-name={item.name}
      data-drop={item.folder ? item.path : undefined}
      draggable
      onDragStart={(event) => {
        if (!chosen) shelf.choose(item.name)
        const list = shelf.chosen.value.length > 0 ? shelf.chosen.value : [item]
        event.dataTransfer?.setData(ROWS, JSON.stringify(list.map((one) => one.path)))
        if (event.dataTransfer) event.dataTransfer.effectAllowed = 'copyMove'
      }}
      onPointerDown={(event) => {
        if (event.pointerType !== 'touch') return
        const mine = {
          fired: false,
          timer: setTimeout(() => {
            mine.fired = true
            shelf.choose(item.name, 'toggle')
          }, LONG_PRESS_MS),
        }
        press.current = mine
      }}
      onPointerCancel={() => clearTimeout(press.current?.timer)}
      onPointerUp={() => clearTimeout(press.current?.timer)}
      onClick={(event) => {
        const fired = press.current?.fired
        const touch = press.current !== null
        clearTimeout(press.current?.timer)
        press.current = null
        if (fired || (event.target instanceof Element && event.target.closest('input, button'))) return
        if (touch) {
          if (shelf.selected.value.size > 0 && !(shelf.selected.value.size === 1 && shelf.shown.value)) shelf.choose(item.name, 'toggle')
          else shelf.openItem(item)
          return
        }
        if (event.shiftKey) shelf.choose(item.name, 'range')
        else if (event.ctrlKey || event.metaKey) shelf.choose(item.name, 'toggle')
        else {
          shelf.choose(item.name)
          // with the pane open, it follows
          if (shelf.shown.value && !item.folder) shelf.show(item.path)
        }
      }}
      onDblClick={(event) => {
        if (event.target instanceof Element && event.target.closest('input, button')) return
        shelf.openItem(item)
      }}
      onContextMenu={(event) => {
        event.preventDefault()
        // under a finger the long press selects
        if (press.current) return
        openMenu({ x: event.clientX, y: event.clientY })
      }}
    >
      <span class="col-check" role="gridcell">
        <input type="checkbox" tabIndex={-1} aria-label={`Select ${item.name}`} checked={chosen} onChange={() => shelf.choose(item.name, 'toggle')} />
      </span>
      <span class="col-name" role="gridcell">
        <Icon of={kind.icon} size={narrow ? 22 : 18} class={`tint-${kind.tint}`} />
        <span class="name-words">
          <span class="cut" title={item.name}>
            {item.name}
          </span>
          {narrow && (
            <span class="cut row-more">
              {item.folder ? 'Folder' : size(item.size ?? 0)} · {date}
            </span>
          )}
        </span>
      </span>
      {!narrow && (
        <>
          <span class="col-size" role="gridcell">
            {item.folder ? '' : size(item.size ?? 0)}
          </span>
          <span class="col-at" role="gridcell" title={whenInFull(instant(item.at))}>
            {date}
          </span>
        </>
      )}
      <span class="col-more" role="gridcell">
        <button type="button" class="button plain square row-button" tabIndex={-1} aria-label={`More for ${item.name}`} aria-haspopup="menu" onClick={(event) => openMenu(event.currentTarget.getBoundingClientRect())}>
          <Icon of={EllipsisVertical} />
        </button>
      </span>
    </div>
  )
}

/** What is said where rows would be. */
function Instead() {
  const status = shelf.status.value
  if (status.is === 'loading') return shelf.away.value ? null : <Slow />
  if (status.is === 'failed')
    return (
      <div class="empty instead" id="failed">
        <Icon of={CircleAlert} size={36} />
        <h2>{status.status === 404 ? 'This folder is not there' : status.status === 403 ? 'This folder is closed to you' : 'This folder cannot be read'}</h2>
        <p>{status.why}</p>
        {shelf.dir.value !== '/' && (
          <button type="button" class="button" onClick={shelf.up}>
            Up one folder
          </button>
        )}
      </div>
    )
  if (shelf.rows.value.length > 0) return null
  if (shelf.filter.value)
    return (
      <div class="empty instead">
        <Icon of={SearchX} size={36} />
        <h2>No name matches</h2>
        <p>Nothing in this folder is called “{shelf.filter.value}”.</p>
      </div>
    )
  return (
    <div class="empty instead">
      <Icon of={FolderOpen} size={36} />
      <h2>This folder is empty</h2>
      <p>{shelf.hiddenCount.value > 0 ? 'It holds hidden files only.' : 'Drop files here, or upload them.'}</p>
      {shelf.hiddenCount.value > 0 && (
        <button type="button" class="button" onClick={() => shelf.setHidden(true)}>
          Show hidden files
        </button>
      )}
    </div>
  )
}

/** Reading usually takes no time; only then is it worth a word. */
function Slow() {
  const [late, setLate] = useState(false)
  useEffect(() => {
    const timer = setTimeout(() => setLate(true), 300)
    return () => clearTimeout(timer)
  }, [])
  return late ? (
    <div class="empty instead">
      <span class="spinner" />
    </div>
  ) : null
}

/** The keyboard, while the list has it. */
function useKeys(page: number) {
  const typed = useRef({ text: '', at: 0 })
  return (event: KeyboardEvent) => {
    if (event.target instanceof HTMLInputElement && event.target.type !== 'checkbox') return
    const rows = shelf.rows.value
    const here = rows.findIndex((item) => item.name === shelf.cursor.value)
    const item = rows[here]
    const control = event.ctrlKey || event.metaKey
    const go = (n: number) => {
      event.preventDefault()
      const next = rows[Math.max(0, Math.min(rows.length - 1, n))]
      if (!next) return
      shelf.choose(next.name, event.shiftKey ? 'range' : 'only')
      if (!event.shiftKey && shelf.shown.value && !next.folder) shelf.show(next.path)
    }
    const chosen = shelf.chosen.value
    const done = (act: () => void) => {
      event.preventDefault()
      act()
    }
    switch (event.key) {
      case 'ArrowDown':
        return go(here + 1)
      case 'ArrowUp':
        return event.altKey ? done(shelf.up) : go(here < 0 ? rows.length - 1 : here - 1)
      case 'Home':
        return go(0)
      case 'End':
        return go(rows.length - 1)
      case 'PageDown':
        return go(here + page)
      case 'PageUp':
        return go(here - page)
      case 'Enter':
        return done(() => item && shelf.openItem(item))
      case 'ArrowRight':
        return item ? done(() => shelf.openItem(item)) : undefined
      case 'ArrowLeft':
      case 'Backspace':
        return event.altKey && event.key === 'ArrowLeft' ? undefined : done(shelf.up)
      case ' ':
        return done(() => item && shelf.choose(item.name, 'toggle'))
      case 'Escape':
        if (shelf.shown.value) return done(() => void shelf.hide())
        if (shelf.selected.value.size > 0) return done(shelf.chooseNone)
        if (shelf.filter.value) {
          shelf.filter.value = ''
          seeking.value = false
        }
        return
      case 'F2':
        return done(() => item && void shelf.rename(item))
      case 'Delete':
        return done(() => void shelf.removeAll(chosen.length > 0 ? chosen : item ? [item] : []))
      case 'ContextMenu':
        return
    }
    if (control && !event.altKey) {
      switch (event.key.toLowerCase()) {
        case 'a':
          return done(shelf.chooseAll)
        case 'c':
          return done(() => shelf.take(chosen, false))
        case 'x':
          return done(() => shelf.take(chosen, true))
        case 'v':
          return done(() => void shelf.paste())
        case 'h':
          return done(() => shelf.setHidden(!shelf.showHidden.value))
      }
      return
    }
    if (event.key === '/') return done(() => (seeking.value = true))
    if (event.key === '?') return done(() => void help())
    if (event.key.length === 1 && !event.altKey) {
      const now = event.timeStamp
      const text = (now - typed.current.at < TYPE_AHEAD_MS ? typed.current.text : '') + event.key.toLowerCase()
      typed.current = { text, at: now }
      const begins = (one: Item) => one.name.toLowerCase().startsWith(text)
      const start = text.length > 1 ? here : here + 1
      const after = rows.findIndex((one, n) => n >= start && begins(one))
      const found = after >= 0 ? after : rows.findIndex(begins)
      if (found >= 0) go(found)
    }
  }
}
