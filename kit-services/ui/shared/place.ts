// Where a page stands: which service and index its host names, and where its siblings are.

export interface Place {
  /** The slug in the host name, as `terminal`. */
  slug: string
  /** The number after it. */
  index: number
}

const SEGMENT = /^([0-9a-f]{24}-[0-9a-f]{24})-([a-z]+)-(\d{1,5})$/

/** The service and index that a kit host name carries; none on an alias or a custom domain. */
export function placeOf(host: string): Place | null {
  const found = SEGMENT.exec(host.split('.', 1)[0] ?? '')
  return found?.[2] && found[3] ? { slug: found[2], index: Number(found[3]) } : null
}

/** The page of another service of the same computer; none where the host does not tell. */
export function sibling(url: URL, slug: string, index = 1): URL | null {
  const label = url.hostname.split('.', 1)[0] ?? ''
  const found = SEGMENT.exec(label)
  if (!found) return null
  const next = new URL('/', url)
  next.hostname = `${found[1]}-${slug}-${index}${url.hostname.slice(label.length)}`
  return next
}
