// Short notices at the foot of the page.
import { signal } from '@preact/signals'
import { CircleAlert, X } from 'lucide'
import { Icon } from './icon.tsx'

interface Toast {
  id: number
  text: string
  bad: boolean
  action?: { label: string; do: () => void } | undefined
}

/** More than these at once nobody reads; the oldest makes room. */
const MOST = 3
const STAYS_MS = 5000
const BAD_STAYS_MS = 9000

const toasts = signal<Toast[]>([])
let next = 1

export function tell(text: string, action?: Toast['action']): void {
  put({ id: next++, text, bad: false, action })
}

/** Say what went wrong. */
export function complain(text: string, action?: Toast['action']): void {
  put({ id: next++, text, bad: true, action })
}

function put(toast: Toast): void {
  toasts.value = [...toasts.value.filter((other) => other.text !== toast.text), toast].slice(-MOST)
  setTimeout(() => drop(toast.id), toast.bad ? BAD_STAYS_MS : STAYS_MS)
}

function drop(id: number): void {
  toasts.value = toasts.value.filter((toast) => toast.id !== id)
}

/** Put once into every page. */
export function ToastHost() {
  return (
    <div class="toasts" role="status" aria-live="polite">
      {toasts.value.map((toast) => (
        <div key={toast.id} class={toast.bad ? 'toast bad' : 'toast'}>
          {toast.bad && <Icon of={CircleAlert} />}
          <span>{toast.text}</span>
          {toast.action && (
            <button
              type="button"
              class="button plain"
              onClick={() => {
                drop(toast.id)
                toast.action?.do()
              }}
            >
              {toast.action.label}
            </button>
          )}
          <button type="button" class="button plain" aria-label="Dismiss" onClick={() => drop(toast.id)}>
            <Icon of={X} size={14} />
          </button>
        </div>
      ))}
    </div>
  )
}
