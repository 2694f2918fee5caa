// How long to wait before trying again.

export interface Backoff {
  first: number
  factor: number
  most: number
}

/** Quick enough for a blip, slow enough that a node that restarts is not trampled. */
export const RECONNECT: Backoff = { first: 400, factor: 1.7, most: 15_000 }

/** Milliseconds before attempt `n` (from 0); `random` in 0..1 spreads clients apart by up to a fifth. */
export function delay(n: number, random: number, { first, factor, most }: Backoff = RECONNECT): number {
  const base = Math.min(most, first * factor ** Math.min(n, 64))
  return Math.round(base * (0.8 + 0.2 * random))
}
