// How every page begins.
import { render, type ComponentType } from 'preact'
import './base.css'
import { followViewport } from './viewport.ts'

/** Pages opened in the background draw no frame to wait for. */
const NO_FRAME_MS = 100

/** Put the page in place, after the browser has shown the bar that stands in its HTML. */
export function start(Page: ComponentType): void {
  const root = document.getElementById('app')
  if (!root) throw new Error('the page has no #app')
  let begun = false
  const begin = () => {
    if (begun) return
    begun = true
    followViewport()
    root.textContent = ''
    render(<Page />, root)
  }
  requestAnimationFrame(() => setTimeout(begin))
  setTimeout(begin, NO_FRAME_MS)
}
