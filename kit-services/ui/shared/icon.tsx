import type { IconNode } from 'lucide'
import { h } from 'preact'

interface Props {
  of: IconNode
  size?: number
  class?: string
}

/** A picture beside words, or inside a button that has a label: it says nothing itself. */
export function Icon({ of, size = 16, class: name }: Props) {
  return (
    <svg
      class={name ? `icon ${name}` : 'icon'}
      width={size}
      height={size}
      viewBox="0 0 24 24"
      fill="none"
      stroke="currentColor"
      stroke-width={size > 24 ? 1.5 : 2}
      stroke-linecap="round"
      stroke-linejoin="round"
      aria-hidden="true"
    >
      {of.map(([tag, attributes]) => h(tag, attributes as Record<string, string>))}
    </svg>
  )
}
