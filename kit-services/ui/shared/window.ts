// Long lists: only the rows near the window exist.

/** Which rows stand in the window, with some beyond its edges. */
export function window(count: number, height: number, scrolled: number, visible: number, beyond = 8): { from: number; to: number } {
  const from = Math.max(0, Math.floor(scrolled / height) - beyond)
  const to = Math.min(count, Math.ceil((scrolled + visible) / height) + beyond)
  return { from: Math.min(from, to), to }
}
