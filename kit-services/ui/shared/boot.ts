// Runs before the first paint: a page that was told to be dark never flashes white.
// A copy of no module: it must stay small enough to block on.
const root = document.documentElement
let wish = new URLSearchParams(location.search).get('theme')
try {
  wish ??= localStorage.getItem('hoody.theme')
} catch {
  // storage is closed to frames of other sites: follow the system
}
if (wish === 'light' || wish === 'dark') root.dataset['theme'] = wish
export {}
