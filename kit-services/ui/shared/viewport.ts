// The height that is really visible. Browsers that slide a keyboard over the page, rather than
// shrinking it, say so only here.
export function followViewport(): void {
  const view = window.visualViewport
  if (!view) return
  const apply = () => {
    // pinch zoom also shrinks the visual viewport, and must not squeeze the page
    if (view.scale > 1.01) return
    document.documentElement.style.setProperty('--visible', `${Math.round(view.height)}px`)
    if (view.offsetTop > 0) window.scrollTo(0, 0)
  }
  view.addEventListener('resize', apply)
  view.addEventListener('scroll', apply)
  apply()
}
