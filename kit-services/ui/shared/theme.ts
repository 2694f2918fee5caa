// Light, dark, or as the system says. `boot.ts` has usually applied the wish before the page was drawn.
import { computed, signal } from '@preact/signals'

export type Wish = 'auto' | 'light' | 'dark'

const KEY = 'hoody.theme'
const system = matchMedia('(prefers-color-scheme: dark)')
const systemDark = signal(system.matches)
system.addEventListener('change', () => (systemDark.value = system.matches))

const applied = document.documentElement.dataset['theme'] ?? recall(KEY)
export const wish = signal<Wish>(applied === 'light' || applied === 'dark' ? applied : 'auto')
if (wish.value !== 'auto') document.documentElement.dataset['theme'] = wish.value
export const dark = computed(() => (wish.value === 'auto' ? systemDark.value : wish.value === 'dark'))

export function choose(next: Wish): void {
  wish.value = next
  if (next === 'auto') delete document.documentElement.dataset['theme']
  else document.documentElement.dataset['theme'] = next
  remember(KEY, next === 'auto' ? null : next)
}

/** Keep a small preference, where the browser lets us. */
export function remember(key: string, value: string | null): void {
  try {
    if (value === null) localStorage.removeItem(key)
    else localStorage.setItem(key, value)
  } catch {
    // storage is closed to frames of other sites: the preference lives as long as the page
  }
}

export function recall(key: string): string | null {
  try {
    return localStorage.getItem(key)
  } catch {
    return null
  }
}
