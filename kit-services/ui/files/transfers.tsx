// The tray of uploads.
import { signal } from '@preact/signals'
import { Check, ChevronDown, ChevronUp, CircleAlert, RotateCcw, X } from 'lucide'
import { IconButton } from '../shared/button.tsx'
import { count, size } from '../shared/format.ts'
import { Icon } from '../shared/icon.tsx'
import { again, clear, drop, running, totals, uploads, type Upload } from './uploads.ts'

const folded = signal(false)
/** Rows drawn; the rest is counted. */
const ROWS = 60

export function Transfers() {
  const list = uploads.value
  if (list.length === 0) return null
  const { size: all, sent, left, failed, share } = totals.value
  const going = running.value
  const head = going ? `Uploading ${count(left, 'file')}` : failed > 0 ? `${count(failed, 'upload')} failed` : `Uploaded ${count(list.length, 'file')}`
  // what goes on or went wrong comes first
  const rank: Record<Upload['stage'], number> = { failed: 0, sending: 1, waiting: 2, done: 3 }
  const shown = [...list].sort((a, b) => rank[a.stage] - rank[b.stage] || (a.stage === 'done' ? b.id - a.id : a.id - b.id)).slice(0, ROWS)
  return (
    <section class="tray" aria-label="Uploads" id="uploads" data-running={going}>
      <header class="tray-head">
        {going ? <span class="spinner" /> : <Icon of={failed > 0 ? CircleAlert : Check} class={failed > 0 ? 'bad-text' : 'good-text'} />}
        <span class="tray-words spread">
          <strong class="cut" role="status">
            {head}
          </strong>
          <span class="cut">
            {size(sent)} of {size(all)}
          </span>
        </span>
        <IconButton icon={folded.value ? ChevronUp : ChevronDown} label={folded.value ? 'Show uploads' : 'Fold'} onClick={() => (folded.value = !folded.value)} />
        {!going && <IconButton id="uploads-close" icon={X} label="Close" onClick={clear} />}
      </header>
      {going && (
        <div class="progress" role="progressbar" aria-label="Uploads" aria-valuemin={0} aria-valuemax={100} aria-valuenow={Math.round(share * 100)}>
          <i style={{ width: `${share * 100}%` }} />
        </div>
      )}
      {!folded.value && (
        <ul class="tray-list">
          {shown.map((upload) => (
            <Row key={upload.id} upload={upload} />
          ))}
          {list.length > shown.length && <li class="tray-rest">and {list.length - shown.length} more</li>}
        </ul>
      )}
    </section>
  )
}

function Row({ upload }: { upload: Upload }) {
  const { stage } = upload
  return (
    <li class={`tray-row ${stage}`}>
      <span class="tray-words spread">
        <span class="cut" title={upload.path}>
          {upload.name}
        </span>
        <span class="cut tray-why" title={upload.why}>
          {stage === 'failed' ? upload.why : stage === 'sending' ? `${size(upload.sent)} of ${size(upload.size)}` : stage === 'waiting' ? 'Waiting' : size(upload.size)}
        </span>
      </span>
      {stage === 'failed' && <IconButton icon={RotateCcw} label={`Try ${upload.name} again`} onClick={() => again(upload.id)} />}
      {stage === 'done' ? <Icon of={Check} class="good-text" /> : <IconButton icon={X} label={stage === 'failed' ? `Forget ${upload.name}` : `Cancel ${upload.name}`} onClick={() => drop(upload.id)} />}
    </li>
  )
}
