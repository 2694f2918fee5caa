// The pages there are, and the way from one to another. A new page adds one line here.
import type { IconNode } from 'lucide'
import { Database, Folder, Monitor, Moon, ScrollText, Sun, Terminal, Zap } from 'lucide'
import { Icon } from './icon.tsx'
import type { Entry } from './menu.tsx'
import { MenuButton } from './menu.tsx'
import { sibling } from './place.ts'
import { choose, wish, type Wish } from './theme.ts'

interface Page {
  slug: string
  name: string
  icon: IconNode
}

const PAGES: Page[] = [
  { slug: 'terminal', name: 'Terminal', icon: Terminal },
  { slug: 'files', name: 'Files', icon: Folder },
  { slug: 'sqlite', name: 'Databases', icon: Database },
  { slug: 'exec', name: 'Scripts', icon: Zap },
  { slug: 'logs', name: 'Logs', icon: ScrollText },
]

const THEMES: { wish: Wish; name: string; icon: IconNode }[] = [
  { wish: 'auto', name: 'As the system', icon: Monitor },
  { wish: 'light', name: 'Light', icon: Sun },
  { wish: 'dark', name: 'Dark', icon: Moon },
]

/** The mark at the left of the bar: which page this is, and its siblings. */
export function PageMark({ slug }: { slug: string }) {
  const own = PAGES.find((page) => page.slug === slug)
  if (!own) throw new Error(`no page ${slug} in the list of pages`)
  const entries = (): Entry[] => {
    const others: Entry[] = []
    for (const page of PAGES) {
      const to = page === own ? null : sibling(new URL(location.href), page.slug)
      if (to) others.push({ label: page.name, icon: page.icon, href: to.href })
    }
    return others.length ? ['On this computer', ...others, '-', ...themes()] : themes()
  }
  return (
    <MenuButton id="pages" class="page-mark" label={`${own.name}: pages and appearance`} entries={entries}>
      <span class="mark">
        <Icon of={own.icon} size={15} />
      </span>
      <h1 class="page-name">{own.name}</h1>
    </MenuButton>
  )
}

function themes(): Entry[] {
  return ['Appearance', ...THEMES.map((theme) => ({ label: theme.name, icon: theme.icon, checked: wish.value === theme.wish, do: () => choose(theme.wish) }))]
}
