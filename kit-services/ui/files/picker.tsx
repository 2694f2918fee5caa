// A dialog that picks a folder.
import { ChevronRight, CornerLeftUp, Folder } from 'lucide'
import { useEffect, useState } from 'preact/hooks'
import { words } from '../shared/call.ts'
import { custom } from '../shared/dialog.tsx'
import { Icon } from '../shared/icon.tsx'
import { ordered, type Item } from './listing.ts'
import { base, clean, parent } from './paths.ts'
import { list } from './service.ts'

/** The folder that was picked; null when the person leaves the dialog. */
export function chooseFolder(title: string, action: string, from: string): Promise<string | null> {
  return custom<string>((answer) => <Picker title={title} action={action} from={from} answer={answer} />)
}

interface Props {
  title: string
  action: string
  from: string
  answer: (path: string | null) => void
}

function Picker({ title, action, from, answer }: Props) {
  const [path, setPath] = useState(from)
  const [text, setText] = useState(from)
  const [folders, setFolders] = useState<Item[] | null>(null)
  const [fault, setFault] = useState('')

  useEffect(() => {
    const stop = new AbortController()
    setFault('')
    list(path, stop.signal).then(
      (found) => setFolders(ordered(found.items, { by: 'name', down: false }).filter((item) => item.folder)),
      (error: unknown) => {
        if (stop.signal.aborted) return
        setFolders([])
        setFault(words(error))
      },
    )
    return () => stop.abort()
  }, [path])

  const enter = (next: string) => {
    setPath(next)
    setText(next)
  }
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault()
        const typed = clean(text)
        if (typed !== path) return enter(typed)
        if (!fault) answer(path)
      }}
    >
      <div class="dialog-body">
        <h2 id="dialog-title">{title}</h2>
        <input class="input mono" data-focus aria-label="Folder" value={text} spellcheck={false} autocomplete="off" onInput={(event) => setText(event.currentTarget.value)} />
        <div class="picker" role="listbox" aria-label="Folders">
          {path !== '/' && (
            <button type="button" class="menu-item" role="option" onClick={() => enter(parent(path))}>
              <Icon of={CornerLeftUp} />
              <span class="cut">{base(parent(path)) || '/'}</span>
            </button>
          )}
          {folders?.map((item) => (
            <button key={item.path} type="button" class="menu-item" role="option" onClick={() => enter(item.path)}>
              <Icon of={Folder} class="tint-folder" />
              <span class="cut spread">{item.name}</span>
              <Icon of={ChevronRight} size={14} />
            </button>
          ))}
          {folders?.length === 0 && !fault && <p class="picker-note">No folders in here.</p>}
          {folders === null && <p class="picker-note">Reading…</p>}
        </div>
        <div class="fault" role="status">
          {fault}
        </div>
      </div>
      <div class="dialog-foot">
        <button type="button" class="button" onClick={() => answer(null)}>
          Cancel
        </button>
        <button type="submit" class="button main" disabled={fault !== '' && clean(text) === path}>
          {clean(text) === path ? action : 'Open'}
        </button>
      </div>
    </form>
  )
}
