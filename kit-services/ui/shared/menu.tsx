// Menus: under a button, or where the pointer is. One at a time.
import { signal } from '@preact/signals'
import type { IconNode } from 'lucide'
import { ChevronDown } from 'lucide'
import type { ComponentChildren } from 'preact'
import { useLayoutEffect, useRef } from 'preact/hooks'
import { Icon } from './icon.tsx'

export interface Item {
  label: string
  icon?: IconNode
  /** The keys that do the same, as `F2`; not shown to fingers. */
  keys?: string
  /** More about it, at the right. */
  note?: string
  danger?: boolean
  disabled?: boolean
  /** A choice among several, and whether it is the one taken. */
  checked?: boolean
  href?: string
  do?: () => void
}

/** `'-'` draws a rule, any other text a heading. */
export type Entry = Item | string

interface Open {
  entries: Entry[]
  label: string
  /** Where the menu hangs: below this box, or beside this point. */
  at: DOMRect | { x: number; y: number }
  back: HTMLElement | null
}

const open = signal<Open | null>(null)

export function showMenu(label: string, at: Open['at'], entries: Entry[]): void {
  const active = document.activeElement
  open.value = { label, at, entries, back: active instanceof HTMLElement ? active : null }
}

export function closeMenu(): void {
  const last = open.value
  if (!last) return
  open.value = null
  last.back?.focus({ preventScroll: true })
}

/** Put once into every page. */
export function MenuHost() {
  const now = open.value
  const box = useRef<HTMLDivElement>(null)

  useLayoutEffect(() => {
    const menu = box.current
    if (!now || !menu) return
    const { innerWidth, innerHeight } = window
    const own = menu.getBoundingClientRect()
    const rect = now.at instanceof DOMRect ? now.at : new DOMRect(now.at.x, now.at.y, 0, 0)
    const below = rect.bottom + 4
    const top = below + own.height > innerHeight - 8 ? Math.max(8, Math.min(rect.top - 4 - own.height, innerHeight - own.height - 8)) : below
    const left = rect.left + own.width > innerWidth - 8 ? Math.max(8, rect.right - own.width) : rect.left
    menu.style.top = `${top}px`
    menu.style.left = `${Math.min(left, Math.max(8, innerWidth - own.width - 8))}px`
    const first = menu.querySelector<HTMLElement>('[aria-checked="true"]') ?? menu.querySelector<HTMLElement>('.menu-item:not(:disabled)')
    first?.focus({ preventScroll: true })

    const outside = (event: Event) => {
      if (event.target instanceof Node && !menu.contains(event.target)) {
        // a press on the button that opened it closes it, and does not open it again
        const opener = now.back
        closeMenu()
        if (opener?.contains(event.target)) {
          opener.addEventListener('click', (click) => click.stopImmediatePropagation(), { capture: true, once: true })
        }
      }
    }
    const away = () => closeMenu()
    addEventListener('pointerdown', outside, true)
    addEventListener('resize', away)
    addEventListener('blur', away)
    return () => {
      removeEventListener('pointerdown', outside, true)
      removeEventListener('resize', away)
      removeEventListener('blur', away)
    }
  }, [now])

  if (!now) return null

  const keys = (event: KeyboardEvent) => {
    event.stopPropagation()
    const items = [...(box.current?.querySelectorAll<HTMLElement>('.menu-item:not(:disabled)') ?? [])]
    const here = items.indexOf(document.activeElement as HTMLElement)
    const go = (n: number) => {
      event.preventDefault()
      items[(n + items.length) % items.length]?.focus()
    }
    switch (event.key) {
      case 'ArrowDown':
        return go(here + 1)
      case 'ArrowUp':
        return go(here < 0 ? -1 : here - 1)
      case 'Home':
        return go(0)
      case 'End':
        return go(-1)
      case 'Escape':
      case 'Tab':
        event.preventDefault()
        return closeMenu()
      default: {
        if (event.key.length !== 1 || event.ctrlKey || event.metaKey || event.key === ' ') return
        const wanted = event.key.toLowerCase()
        const found = items.findIndex((item, n) => n > here && item.textContent?.trim().toLowerCase().startsWith(wanted))
        const other = items.findIndex((item) => item.textContent?.trim().toLowerCase().startsWith(wanted))
        if (found >= 0) go(found)
        else if (other >= 0) go(other)
      }
    }
  }

  return (
    <div ref={box} class="menu" role="menu" aria-label={now.label} onKeyDown={keys} onContextMenu={(event) => event.preventDefault()}>
      {now.entries.map((entry, n) => {
        if (entry === '-') return <hr key={n} />
        if (typeof entry === 'string')
          return (
            <div key={n} class="menu-note">
              {entry}
            </div>
          )
        const shared = {
          class: `menu-item${entry.danger ? ' danger' : ''}`,
          tabIndex: -1,
          role: entry.checked === undefined ? ('menuitem' as const) : ('menuitemradio' as const),
          'aria-checked': entry.checked,
          onClick: () => {
            closeMenu()
            entry.do?.()
          },
        }
        const inside = (
          <>
            {entry.icon && <Icon of={entry.icon} />}
            <span class="cut">{entry.label}</span>
            {entry.keys && <kbd>{entry.keys}</kbd>}
            {entry.checked && !entry.keys && !entry.note && <span class="menu-mark">✓</span>}
            {entry.note && <span class="menu-mark">{entry.note}</span>}
          </>
        )
        return entry.href ? (
          <a key={n} {...shared} href={entry.href}>
            {inside}
          </a>
        ) : (
          <button key={n} type="button" {...shared} disabled={entry.disabled}>
            {inside}
          </button>
        )
      })}
    </div>
  )
}

interface MenuButtonProps {
  label: string
  entries: () => Entry[]
  icon?: IconNode
  children?: ComponentChildren
  id?: string
  class?: string
}

/** A button that opens a menu below itself. */
export function MenuButton({ label, entries, icon, children, id, class: name }: MenuButtonProps) {
  const button = useRef<HTMLButtonElement>(null)
  const shown = open.value !== null && open.value.label === label
  return (
    <button
      ref={button}
      type="button"
      id={id}
      class={`button plain${children ? '' : ' square'}${name ? ` ${name}` : ''}`}
      aria-label={label}
      title={label}
      aria-haspopup="menu"
      aria-expanded={shown}
      onClick={() => {
        if (!button.current) return
        button.current.focus({ preventScroll: true })
        showMenu(label, button.current.getBoundingClientRect(), entries())
      }}
    >
      {icon && <Icon of={icon} size={17} />}
      {children}
      {children && <Icon of={ChevronDown} size={14} class="faint" />}
    </button>
  )
}
