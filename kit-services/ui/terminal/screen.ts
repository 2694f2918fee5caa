// The screen: xterm.js, dressed. Knows nothing of lines and sessions.
import { FitAddon } from '@xterm/addon-fit'
import type { SearchAddon } from '@xterm/addon-search'
import { WebLinksAddon } from '@xterm/addon-web-links'
import { Terminal, type ITheme } from '@xterm/xterm'
import '@xterm/xterm/css/xterm.css'
import type { Size } from './frames.ts'
import type { Renderer } from './options.ts'

const FONT = "'JetBrains Mono Variable', ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
const FONT_WAIT_MS = 200

/** Lines kept above the screen. */
const SCROLLBACK = 10_000

/** Unparsed output above which the sender is asked to wait, and below which to go on. */
const HIGH_WATER = 1 << 20
const LOW_WATER = 128 << 10

/** Points a finger travels for one line, at most; the line height otherwise. */
const FRICTION = 0.94

export interface Wants {
  font: number
  theme: ITheme
  readonly: boolean
  renderer: Renderer
  reader: boolean
  typed: (text: string) => void
  binary: (text: string) => void
  resized: (size: Size) => void
  bell: () => void
  title: (title: string) => void
  /** The sender is too fast (true), or may go on (false). */
  flood: (full: boolean) => void
  /** Says what draws the screen now, and why. */
  drawn: (reason: string) => void
  /** A chord of the page rather than of the shell; true when it was one. */
  chord: (event: KeyboardEvent) => boolean
}

export class Screen {
  readonly term: Terminal
  #fit = new FitAddon()
  #search: SearchAddon | null = null
  #wants: Wants
  #place: HTMLElement
  #observer: ResizeObserver
  #drawnBy: 'webgl' | 'dom' = 'dom'
  #waiting = 0
  #full = false
  /** While a screen is shown again, the bells in it have rung before. */
  #repeating = false

  private constructor(place: HTMLElement, wants: Wants) {
    this.#place = place
    this.#wants = wants
    this.term = new Terminal({
      allowProposedApi: true,
      cursorBlink: true,
      cursorInactiveStyle: 'outline',
      drawBoldTextInBrightColors: false,
      disableStdin: wants.readonly,
      fontFamily: FONT,
      fontSize: wants.font,
      fontWeight: 400,
      fontWeightBold: 700,
      lineHeight: 1.2,
      macOptionIsMeta: false,
      macOptionClickForcesSelection: true,
      minimumContrastRatio: 3,
      rightClickSelectsWord: false,
      screenReaderMode: wants.reader,
      scrollback: SCROLLBACK,
      scrollOnUserInput: true,
      smoothScrollDuration: 0,
      theme: wants.theme,
    })
    const { term } = this
    term.loadAddon(this.#fit)
    term.loadAddon(new WebLinksAddon((_event, uri) => window.open(uri, '_blank', 'noopener,noreferrer')))
    term.options.linkHandler = {
      activate: (_event, uri) => {
        if (/^https?:/i.test(uri)) window.open(uri, '_blank', 'noopener,noreferrer')
      },
    }
    term.onData((text) => wants.typed(text))
    term.onBinary((text) => wants.binary(text))
    term.onBell(() => {
      if (!this.#repeating) wants.bell()
    })
    term.onTitleChange((title) => wants.title(title))
    term.onResize(({ cols, rows }) => wants.resized({ columns: cols, rows }))
    term.attachCustomKeyEventHandler((event) => {
      if (event.type !== 'keydown' || !wants.chord(event)) return true
      event.preventDefault()
      return false
    })
    term.open(place)
    this.fit()
    this.#observer = new ResizeObserver(() => this.fit())
    this.#observer.observe(place)
    const faster = wants.renderer === 'webgl' || (wants.renderer === 'auto' && accelerated())
    void (faster ? this.#accelerate() : Promise.resolve()).then(() => wants.drawn('opened'))
    this.#touch()
  }

  static async open(place: HTMLElement, wants: Wants): Promise<Screen> {
    // the font decides the size of a cell: wait for it, but not long
    const font = document.fonts.load(`${wants.font}px 'JetBrains Mono Variable'`).catch(() => [])
    const bold = document.fonts.load(`700 ${wants.font}px 'JetBrains Mono Variable'`).catch(() => [])
    const fonts = Promise.all([font, bold])
    const arrived = await Promise.race([fonts.then(() => true), new Promise<false>((done) => setTimeout(done, FONT_WAIT_MS, false))])
    const screen = new Screen(place, wants)
    await screen.#widen()
    if (!arrived) {
      void fonts.then(() => {
        screen.term.options.fontFamily = `${FONT}, serif`
        screen.fit()
      })
    }
    return screen
  }

  /** What draws the screen. */
  get drawnBy(): 'webgl' | 'dom' {
    return this.#drawnBy
  }

  get size(): Size {
    return { columns: this.term.cols, rows: this.term.rows }
  }

  /** Draw output. `repeat` says that these bytes show again what was there before. */
  write(bytes: Uint8Array, repeat = false): void {
    const { term } = this
    this.#waiting += bytes.length
    if (repeat) term.write('', () => (this.#repeating = true))
    term.write(bytes, () => {
      this.#waiting -= bytes.length
      if (repeat) this.#repeating = false
      if (this.#full && this.#waiting <= LOW_WATER) {
        this.#full = false
        this.#wants.flood(false)
      }
    })
    if (!this.#full && this.#waiting > HIGH_WATER) {
      this.#full = true
      this.#wants.flood(true)
    }
  }

  /** Empty the screen and what is above it, behind everything already written. */
  renew(): void {
    this.#full = false
    this.term.write('\x1bc\x1b[3J')
  }

  fit(): void {
    const { clientWidth, clientHeight } = this.#place
    if (clientWidth < 20 || clientHeight < 20) return
    this.#fit.fit()
  }

  focus(): void {
    this.term.focus()
  }

  set theme(theme: ITheme) {
    this.term.options.theme = theme
  }

  set font(size: number) {
    this.term.options.fontSize = size
    this.fit()
  }

  set readonly(on: boolean) {
    this.term.options.disableStdin = on
  }

  set reader(on: boolean) {
    this.term.options.screenReaderMode = on
  }

  async find(text: string, back: boolean): Promise<boolean> {
    if (!this.#search) {
      const { SearchAddon } = await import('@xterm/addon-search')
      this.#search = new SearchAddon()
      this.term.loadAddon(this.#search)
    }
    const marks = {
      decorations: {
        matchBackground: '#8a6d1f',
        activeMatchBackground: '#c9952b',
        matchOverviewRuler: '#c9952b',
        activeMatchColorOverviewRuler: '#ffcf66',
      },
    }
    if (!text) {
      this.#search.clearDecorations()
      return true
    }
    return back ? this.#search.findPrevious(text, marks) : this.#search.findNext(text, marks)
  }

  endFind(): void {
    this.#search?.clearDecorations()
    this.term.clearSelection()
    this.focus()
  }

  /** Emoji and the like take two cells, as the shell counts them. */
  async #widen(): Promise<void> {
    const { Unicode11Addon } = await import('@xterm/addon-unicode11')
    this.term.loadAddon(new Unicode11Addon())
    this.term.unicode.activeVersion = '11'
  }

  async #accelerate(): Promise<void> {
    try {
      const { WebglAddon } = await import('@xterm/addon-webgl')
      const webgl = new WebglAddon()
      webgl.onContextLoss(() => {
        webgl.dispose()
        this.#drawnBy = 'dom'
        this.#wants.drawn('context-lost')
      })
      this.term.loadAddon(webgl)
      this.#drawnBy = 'webgl'
    } catch {
      // no WebGL here: the terminal goes on drawing with elements
    }
  }

  /** Fingers: drag scrolls, with momentum; in full-screen programs it turns the wheel. */
  #touch(): void {
    const place = this.#place
    let last: { y: number; at: number } | null = null
    let rest = 0
    let speed = 0
    let glide = 0
    const scroll = (points: number) => {
      const line = this.#lineHeight()
      rest += points
      const lines = Math.trunc(rest / line)
      if (lines === 0) return
      rest -= lines * line
      if (this.term.buffer.active.type === 'alternate' || this.term.modes.mouseTrackingMode !== 'none') this.#wheel(lines)
      else this.term.scrollLines(lines)
    }
    place.addEventListener(
      'touchstart',
      (event) => {
        cancelAnimationFrame(glide)
        const touch = event.touches[0]
        last = event.touches.length === 1 && touch ? { y: touch.clientY, at: event.timeStamp } : null
        rest = speed = 0
      },
      { passive: true },
    )
    place.addEventListener(
      'touchmove',
      (event) => {
        const touch = event.touches[0]
        if (!last || !touch || event.touches.length !== 1) return
        const moved = last.y - touch.clientY
        const took = Math.max(1, event.timeStamp - last.at)
        speed = 0.7 * (moved / took) + 0.3 * speed
        last = { y: touch.clientY, at: event.timeStamp }
        scroll(moved)
        event.preventDefault()
        event.stopPropagation()
      },
      { passive: false, capture: true },
    )
    place.addEventListener(
      'touchend',
      () => {
        last = null
        let velocity = speed * 16
        const step = () => {
          if (Math.abs(velocity) < 0.5) return
          scroll(velocity)
          velocity *= FRICTION
          glide = requestAnimationFrame(step)
        }
        if (Math.abs(velocity) > 4) glide = requestAnimationFrame(step)
      },
      { passive: true },
    )
  }

  #lineHeight(): number {
    const rows = this.#place.querySelector('.xterm-screen')
    return rows ? Math.max(6, rows.clientHeight / this.term.rows) : 16
  }

  #wheel(lines: number): void {
    const target = this.#place.querySelector('.xterm-screen')
    if (!target) return
    const box = target.getBoundingClientRect()
    const event = () =>
      new WheelEvent('wheel', {
        deltaY: Math.sign(lines) * this.#lineHeight(),
        clientX: box.left + box.width / 2,
        clientY: box.top + box.height / 2,
        bubbles: true,
        cancelable: true,
      })
    for (let n = 0; n < Math.min(Math.abs(lines), 20); n++) target.dispatchEvent(event())
  }
}

/**
 * Whether drawing with the graphics card is worth it: it is one, and not a program that imitates
 * one, and the screen is larger than a phone's, which elements draw as fast.
 */
function accelerated(): boolean {
  if (matchMedia('(pointer: coarse)').matches) return false
  const probe = document.createElement('canvas').getContext('webgl2', { failIfMajorPerformanceCaveat: true })
  if (!probe) return false
  const named = probe.getExtension('WEBGL_debug_renderer_info')
  const card = String(probe.getParameter(named ? named.UNMASKED_RENDERER_WEBGL : probe.RENDERER))
  probe.getExtension('WEBGL_lose_context')?.loseContext()
  return !/swiftshader|llvmpipe|software|basic render/i.test(card)
}
