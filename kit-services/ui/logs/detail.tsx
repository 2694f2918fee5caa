// One request, and sending it again.
import { ClipboardCopy, Copy, Filter, RotateCw, X } from 'lucide'
import { useState } from 'preact/hooks'
import { IconButton } from '../shared/button.tsx'
import { size, whenInFull } from '../shared/format.ts'
import { Icon } from '../shared/icon.tsx'
import { copy } from './app.tsx'
import * as desk from './desk.ts'
import { HIDDEN, answer, duration, isOpen, serviceOf, target, time, tone, type Row } from './entry.ts'
import { curl, planOf, sendable, type Plan } from './replay.ts'

export function Detail({ row }: { row: Row }) {
  const { entry, end } = row
  const { data } = entry
  const last = end?.data ?? data
  const close = () => {
    desk.chosen.value = null
    document.getElementById('rows')?.focus()
  }
  const plan = planOf(entry)
  const headers = Object.entries(data.headers ?? {})
  return (
    <aside
      id="detail"
      class="detail"
      tabIndex={-1}
      aria-label="Request"
      onKeyDown={(event) => {
        if (event.key !== 'Escape') return
        event.preventDefault()
        close()
      }}
    >
      <header class="detail-head">
        <span class={`status-mark ${tone(entry)}`}>{entry.kind === 'event' ? 'log' : (entry.status ?? '—')}</span>
        <h2 class="spread cut">{entry.kind === 'event' ? 'About the log' : `${entry.method ?? ''} ${target(entry)}`}</h2>
        <IconButton icon={ClipboardCopy} label="Copy as JSON" onClick={() => void copy(JSON.stringify(entry, null, 2), 'The entry is copied.')} />
        <IconButton icon={X} id="close" label="Close" onClick={close} />
      </header>
      <div class="detail-body">
        {data.message && <p>{data.message}</p>}
        {entry.url && (
          <section>
            <h3>Address</h3>
            <p class="mono whole">
              {entry.url}{' '}
              <button type="button" class="button plain small" aria-label="Copy the address" title="Copy the address" onClick={() => void copy(entry.url ?? '', 'The address is copied.')}>
                <Icon of={Copy} size={13} />
              </button>
            </p>
          </section>
        )}
        <dl class="facts">
          {entry.kind !== 'event' && <Fact name="Answer">{isOpen(row) ? `${answer(entry.status)}, still open` : answer(entry.status)}</Fact>}
          {(data.refusal || last.fault) && <Fact name="Why">{[data.refusal && `answered by the proxy: ${data.refusal}`, last.fault].filter(Boolean).join('; ')}</Fact>}
          <Fact name="Time">
            <span title={whenInFull(entry.tsMs)}>{time(entry.tsMs, Date.now())}</span>
          </Fact>
          {last.durationMs !== undefined && <Fact name="Took">{duration(last.durationMs)}</Fact>}
          {last.upstreamMs !== undefined && <Fact name="First answer after">{duration(last.upstreamMs)}</Fact>}
          {entry.kind !== 'event' && <Fact name="Bodies">{`${size(last.bytesIn ?? 0)} in, ${size(last.bytesOut ?? 0)} out`}</Fact>}
          {data.contentType && <Fact name="Content">{data.contentType}</Fact>}
          <Fact name="Service">{serviceOf(entry)}</Fact>
          {entry.clientIp && <Fact name="Client">{entry.clientIp}</Fact>}
          {data.http && <Fact name="Protocol">{`HTTP/${data.http}${data.scheme === 'https' ? ' over TLS' : ''}${data.websocket ? ', WebSocket' : ''}`}</Fact>}
          <Fact name="Trace">
            <button type="button" class="link mono" title="Show the requests of this trace" onClick={() => desk.look({ text: entry.traceId })}>
              {entry.traceId}
              <Icon of={Filter} size={12} />
            </button>
          </Fact>
        </dl>
        {headers.length > 0 && (
          <section>
            <h3>Headers of the request</h3>
            <dl class="headers mono">
              {headers.map(([name, value]) => (
                <div key={name}>
                  <dt>{name}</dt>
                  <dd class={value === HIDDEN ? 'faint' : ''}>{value === HIDDEN ? 'not kept' : value}</dd>
                </div>
              ))}
            </dl>
          </section>
        )}
        {plan && <Again plan={plan} id={entry.id} />}
      </div>
    </aside>
  )
}

function Fact({ name, children }: { name: string; children: preact.ComponentChildren }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  )
}

type Sent = { is: 'no' } | { is: 'sent'; after: number; url: string } | { is: 'failed'; why: string }

function Again({ plan, id }: { plan: Plan; id: number }) {
  const [url, setUrl] = useState(plan.url)
  const [chosen, setChosen] = useState(() => plan.headers.filter((header) => !header.hidden && header.name !== 'user-agent').map((header) => header.name))
  const [sent, setSent] = useState<Sent>({ is: 'no' })
  const [busy, setBusy] = useState(false)
  const valid = /^https?:\/\/[^\s]+$/.test(url)
  const line = curl(plan, url, chosen)
  const barred = plan.barred ?? (url.includes(HIDDEN) ? 'Put the secret in place of *** first.' : null)
  const reply = sent.is === 'sent' ? desk.answerTo(plan.method, sent.url, sent.after) : null

  const send = async () => {
    const after = desk.newest()
    setBusy(true)
    try {
      const own = new URL(url).origin === location.origin
      // Another host lets a page send and not read: what came of it is in the log.
      await fetch(url, {
        method: plan.method,
        mode: own ? 'same-origin' : 'no-cors',
        credentials: 'include',
        cache: 'no-store',
        redirect: own ? 'manual' : 'follow',
        headers: sendable(plan.headers.filter((header) => chosen.includes(header.name))).map(({ name, value }): [string, string] => [name, value]),
      })
      setSent({ is: 'sent', after, url })
    } catch {
      setSent({ is: 'failed', why: 'The browser could not send it: the host does not answer, or this page may not reach it. Use the command.' })
    } finally {
      setBusy(false)
    }
  }

  return (
    <section class="again">
      <h3>Send it again</h3>
      {plan.losses.length > 0 && (
        <ul class="losses">
          {plan.losses.map((loss) => (
            <li key={loss}>{loss}</li>
          ))}
        </ul>
      )}
      <label class="field">
        <span>Address</span>
        <textarea class="input mono" rows={3} spellcheck={false} value={url} aria-invalid={!valid} onInput={(event) => setUrl(event.currentTarget.value.trim())} />
      </label>
      {plan.headers.length > 0 && (
        <fieldset>
          <legend>Headers in the command</legend>
          {plan.headers.map(({ name, hidden }) => (
            <label key={name} class="choice">
              <input
                type="checkbox"
                checked={chosen.includes(name)}
                onChange={(event) => setChosen(event.currentTarget.checked ? [...chosen, name] : chosen.filter((other) => other !== name))}
              />
              <span class="mono">{name}</span>
              {hidden && <span class="faint">you add the value</span>}
            </label>
          ))}
        </fieldset>
      )}
      <div class="again-acts">
        <button type="button" id="again" class="button main" disabled={barred !== null || !valid || busy} onClick={() => void send()}>
          <Icon of={RotateCw} size={15} />
          Send from here
        </button>
        <button type="button" id="curl" class="button" disabled={!valid} onClick={() => void copy(line, 'The command is copied.')}>
          <Icon of={Copy} size={15} />
          Copy as curl
        </button>
      </div>
      <p class="again-note" role="status" id="again-note">
        {sent.is === 'failed' ? (
          sent.why
        ) : reply ? (
          <>
            Sent.{' '}
            <button type="button" class="link" onClick={() => void (desk.chosen.value = reply.id)}>
              {answer(reply.status)} in {duration(reply.data.durationMs)}
            </button>
          </>
        ) : sent.is === 'sent' ? (
          desk.line.value.is === 'live' ? 'Sent. Its entry appears in the list in a moment.' : 'Sent. Follow the log to see what came of it.'
        ) : (
          (barred ?? 'Sent from here, it goes with the cookies of this browser; its answer is not shown, its entry appears in the list.')
        )}
      </p>
      <code class="command mono" data-id={id}>
        {line}
      </code>
    </section>
  )
}
