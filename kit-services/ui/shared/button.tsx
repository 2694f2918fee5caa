import type { IconNode } from 'lucide'
import { Icon } from './icon.tsx'

interface Props {
  icon: IconNode
  /** What it does; shown as a tooltip and read aloud. */
  label: string
  onClick?: ((event: MouseEvent) => void) | undefined
  pressed?: boolean
  disabled?: boolean
  /** For tests and styles. */
  id?: string
  class?: string
}

/** A square button with a picture. */
export function IconButton({ icon, label, onClick, pressed, disabled, id, class: name }: Props) {
  return (
    <button
      type="button"
      id={id}
      class={`button plain square${name ? ` ${name}` : ''}`}
      aria-label={label}
      title={label}
      aria-pressed={pressed}
      disabled={disabled}
      onClick={onClick}
    >
      <Icon of={icon} size={17} />
    </button>
  )
}
