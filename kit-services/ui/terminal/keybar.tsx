// The keys that a phone's keyboard lacks. Shown where fingers point.
import { signal } from '@preact/signals'
import { ArrowDown, ArrowLeft, ArrowRight, ArrowUp, Clipboard } from 'lucide'
import type { ComponentChildren } from 'preact'
import { useEffect, useRef } from 'preact/hooks'
import { Icon } from '../shared/icon.tsx'
import { modified, sequence, type Key } from './keys.ts'

type Hold = 'off' | 'once' | 'locked'

const ctrl = signal<Hold>('off')
const alt = signal<Hold>('off')

const REPEAT_AFTER_MS = 380
const REPEAT_EACH_MS = 55

/** What typed text becomes under the held keys, which are then let go. */
export function underHeldKeys(text: string): string {
  if (ctrl.value === 'off' && alt.value === 'off') return text
  return modified(text, letGo())
}

function letGo() {
  const held = { ctrl: ctrl.value !== 'off', alt: alt.value !== 'off' }
  if (ctrl.value === 'once') ctrl.value = 'off'
  if (alt.value === 'once') alt.value = 'off'
  return held
}

interface Props {
  send: (text: string) => void
  paste: () => void
  application: () => boolean
}

export function KeyBar({ send, paste, application }: Props) {
  const key = (name: Key) => () => send(sequence(name, letGo(), application()))
  const text = (what: string) => () => send(modified(what, letGo()))
  return (
    <div class="keybar" role="toolbar" aria-label="Extra keys">
      <Press label="Escape" press={key('Escape')}>
        Esc
      </Press>
      <Press label="Tab" press={key('Tab')}>
        Tab
      </Press>
      <Held label="Ctrl" hold={ctrl} />
      <Held label="Alt" hold={alt} />
      <Press label="Up" press={key('Up')} repeats>
        <Icon of={ArrowUp} />
      </Press>
      <Press label="Down" press={key('Down')} repeats>
        <Icon of={ArrowDown} />
      </Press>
      <Press label="Left" press={key('Left')} repeats>
        <Icon of={ArrowLeft} />
      </Press>
      <Press label="Right" press={key('Right')} repeats>
        <Icon of={ArrowRight} />
      </Press>
      {['/', '-', '|', '~'].map((char) => (
        <Press key={char} label={char} press={text(char)}>
          {char}
        </Press>
      ))}
      <Press label="Home" press={key('Home')}>
        Home
      </Press>
      <Press label="End" press={key('End')}>
        End
      </Press>
      <Press label="Page up" press={key('PageUp')} repeats>
        PgUp
      </Press>
      <Press label="Page down" press={key('PageDown')} repeats>
        PgDn
      </Press>
      <Press label="Paste" press={paste}>
        <Icon of={Clipboard} />
      </Press>
    </div>
  )
}

interface PressProps {
  label: string
  press: () => void
  repeats?: boolean
  children: ComponentChildren
}

function Press({ label, press, repeats, children }: PressProps) {
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined)
  const stop = () => clearTimeout(timer.current)
  useEffect(() => stop, [])
  return (
    <button
      type="button"
      class="key"
      aria-label={label}
      tabIndex={-1}
      // the keyboard must stay up: the key takes no focus
      onPointerDown={(event) => event.preventDefault()}
      onMouseDown={(event) => event.preventDefault()}
      onTouchStart={() => {
        if (!repeats) return
        const again = () => {
          press()
          timer.current = setTimeout(again, REPEAT_EACH_MS)
        }
        timer.current = setTimeout(again, REPEAT_AFTER_MS)
      }}
      onTouchEnd={stop}
      onTouchCancel={stop}
      onClick={press}
    >
      {children}
    </button>
  )
}

/** Once for the next key, twice to keep it. */
function Held({ label, hold }: { label: string; hold: typeof ctrl }) {
  const next: Record<Hold, Hold> = { off: 'once', once: 'locked', locked: 'off' }
  return (
    <button
      type="button"
      class={`key ${hold.value}`}
      aria-pressed={hold.value !== 'off'}
      tabIndex={-1}
      onPointerDown={(event) => event.preventDefault()}
      onMouseDown={(event) => event.preventDefault()}
      onClick={() => (hold.value = next[hold.value])}
    >
      {label}
    </button>
  )
}
