// The list of requests, the newest on top. Only the rows near the window exist.
import { useSignalEffect } from '@preact/signals'
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks'
import { window as slice } from '../shared/window.ts'
import * as desk from './desk.ts'
import { duration, isOpen, serviceOf, target, time, tone, type Row } from './entry.ts'

const ROW = 32
const TALL_ROW = 56
/** Narrower lists put two lines into a row. */
const NARROW = 620
/** So near to the end, older entries are asked for. */
const NEAR = 400

export function List() {
  const box = useRef<HTMLDivElement>(null)
  const [scrolled, setScrolled] = useState(0)
  const [area, setArea] = useState({ width: 1000, height: 600 })
  const rows = desk.rows.value
  const narrow = area.width < NARROW
  const height = narrow ? TALL_ROW : ROW
  const top = useRef<number | null>(null)

  useLayoutEffect(() => {
    const element = box.current
    if (!element) return
    const observer = new ResizeObserver(() => setArea({ width: element.clientWidth, height: element.clientHeight }))
    observer.observe(element)
    return () => observer.disconnect()
  }, [])

  // what is being read stays where it is when something comes above it
  useLayoutEffect(() => {
    const element = box.current
    const before = top.current
    if (element && before !== null && element.scrollTop > height / 2) {
      const at = rows.findIndex((row) => row.entry.id === before)
      const was = Math.floor(scrolled / height)
      if (at >= 0 && at !== was) element.scrollTop += (at - was) * height
    }
    top.current = rows[Math.floor((element?.scrollTop ?? 0) / height)]?.entry.id ?? null
  }, [rows, height])

  // the row that the keyboard goes to comes into sight
  useSignalEffect(() => {
    const id = desk.chosen.value
    const element = box.current
    const at = desk.rows.peek().findIndex((row) => row.entry.id === id)
    if (!element || at < 0) return
    if (at * height < element.scrollTop) element.scrollTop = at * height
    else if ((at + 1) * height > element.scrollTop + element.clientHeight) element.scrollTop = (at + 1) * height - element.clientHeight
  })

  const reach = () => {
    const element = box.current
    if (element && element.scrollTop + element.clientHeight > element.scrollHeight - NEAR) void desk.more()
  }
  useEffect(reach, [rows.length, area.height])

  const page = Math.max(1, Math.floor(area.height / height) - 1)
  const keys = (event: KeyboardEvent) => {
    const steps: Record<string, number> = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity, j: 1, k: -1 }
    const by = steps[event.key]
    if (by !== undefined && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault()
      desk.step(by)
    } else if (event.key === 'Enter') {
      event.preventDefault()
      if (desk.chosen.value === null) desk.step(0)
      document.getElementById('detail')?.focus()
    } else if (event.key === 'Escape' && desk.chosen.value !== null) {
      event.preventDefault()
      desk.chosen.value = null
    }
  }

  const { from, to } = slice(rows.length, height, scrolled, area.height)
  const now = Date.now()
  return (
    <>
      {!narrow && (
        <div class="row head" aria-hidden="true">
          <span>Time</span>
          <span>Status</span>
          <span>Method</span>
          <span>Service</span>
          <span>Address</span>
          <span class="number">Took</span>
        </div>
      )}
      <div
        ref={box}
        id="rows"
        class="rows"
        role="listbox"
        tabIndex={0}
        aria-label="Requests, the newest first"
        aria-activedescendant={desk.chosen.value === null ? undefined : `row-${desk.chosen.value}`}
        onKeyDown={keys}
        onScroll={(event) => {
          const at = event.currentTarget.scrollTop
          setScrolled(at)
          top.current = rows[Math.floor(at / height)]?.entry.id ?? null
          reach()
        }}
      >
        <div style={{ height: `${rows.length * height}px` }}>
          <div style={{ transform: `translateY(${from * height}px)` }}>
            {rows.slice(from, to).map((row) => (
              <Line key={row.entry.id} row={row} height={height} narrow={narrow} now={now} />
            ))}
          </div>
        </div>
        <div class="rows-end" role="status">
          {desk.older.value === 'loading' ? <span class="spinner" /> : desk.older.value === 'none' && rows.length > 20 ? 'The log begins here.' : ''}
        </div>
      </div>
    </>
  )
}

function Line({ row, height, narrow, now }: { row: Row; height: number; narrow: boolean; now: number }) {
  const { entry, end } = row
  const chosen = desk.chosen.value === entry.id
  const event = entry.kind === 'event'
  const shared = {
    id: `row-${entry.id}`,
    role: 'option' as const,
    'aria-selected': chosen,
    class: `row${narrow ? ' two' : ''} ${tone(entry)}${chosen ? ' chosen' : ''}`,
    style: { height: `${height}px` },
    onClick: () => void (desk.chosen.value = chosen && !narrow ? null : entry.id),
  }
  const status = event ? <span class="badge">log</span> : <span class="code">{isOpen(row) ? <span class="dot good" title="Still open" /> : null}{entry.status ?? '—'}</span>
  const took = <span class="number">{isOpen(row) ? 'open' : duration(end?.data.durationMs ?? entry.data.durationMs)}</span>
  const address = event ? <span class="cut">{entry.data.message}</span> : <Address path={target(entry)} />
  if (narrow)
    return (
      <div {...shared}>
        <div class="two-top">
          {status}
          <span class="method">{entry.method}</span>
          {address}
        </div>
        <div class="two-foot">
          <span>{time(entry.tsMs, now)}</span>
          <span class="spread cut">{serviceOf(entry)}</span>
          {took}
        </div>
      </div>
    )
  return (
    <div {...shared}>
      <span class="when">{time(entry.tsMs, now)}</span>
      {status}
      <span class="method">{entry.method}</span>
      <span class="cut soft">{serviceOf(entry)}</span>
      {address}
      {event ? <span /> : took}
    </div>
  )
}

function Address({ path }: { path: string }) {
  const at = path.indexOf('?')
  return (
    <span class="cut address" title={path}>
      {at < 0 ? path : path.slice(0, at)}
      {at >= 0 && <span class="faint">{path.slice(at)}</span>}
    </span>
  )
}
