// The root of the service, from which every request starts. A page may stand below it: a browser
// that opens a folder's own address gets the page of the files there.

/** Everything the pages load stands below this, at the root of its service. */
const RESERVED = '/_hoody/ui/'

export const ROOT: URL = rootOf(import.meta.url, typeof document === 'undefined' ? import.meta.url : document.baseURI)

/** The part of a script's address before the reserved path; a script from elsewhere tells nothing. */
export function rootOf(script: string, page: string): URL {
  const at = script.indexOf(RESERVED)
  return at < 0 ? new URL('./', page) : new URL(script.slice(0, at + 1))
}

/** What of the page's path lies below the root, decoded; empty at the root itself. */
export function below(root: URL, page: URL): string {
  if (!page.pathname.startsWith(root.pathname)) return ''
  try {
    return decodeURIComponent(page.pathname.slice(root.pathname.length))
  } catch {
    return ''
  }
}
