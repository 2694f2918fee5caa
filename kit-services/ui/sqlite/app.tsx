import { CircleAlert, Copy, Database as DatabaseIcon, Download, EllipsisVertical, Eraser, Eye, FileUp, History, Key, Link, Play, Plus, RefreshCw, ShieldCheck, Square, Table as TableIcon, Trash2, X, Zap } from 'lucide'
import { useEffect, useRef } from 'preact/hooks'
import { IconButton } from '../shared/button.tsx'
import { DialogHost, agree, request } from '../shared/dialog.tsx'
import { size, when, whenInFull } from '../shared/format.ts'
import { Icon } from '../shared/icon.tsx'
import { MenuButton, MenuHost, type Entry } from '../shared/menu.tsx'
import { PageMark } from '../shared/pages.tsx'
import { ToastHost, complain, tell } from '../shared/toast.tsx'
import { asks, cell, statements, tabs, took } from './cells.ts'
import * as desk from './desk.ts'
import { download, type Result, type Table } from './service.ts'

/** Rows that are drawn; more would be slow to scroll, and nobody reads them. */
const DRAWN = 1000

const nameOf = (path: string) => path.replace(/^\/hoody\/databases\//, '')

export function App() {
  useEffect(() => {
    void desk.open()
  }, [])
  const status = desk.status.value
  return (
    <>
      <Bar />
      {status.is === 'failed' ? (
        <div class="empty" id="failed">
          <Icon of={CircleAlert} size={36} />
          <h2>The databases cannot be listed</h2>
          <p>{status.why}</p>
          <button type="button" class="button" onClick={() => void desk.load()}>
            Try again
          </button>
        </div>
      ) : status.is === 'loading' ? (
        <div class="empty" aria-busy="true">
          <span class="spinner" />
        </div>
      ) : !desk.db.value ? (
        <div class="empty" id="none">
          <Icon of={DatabaseIcon} size={36} />
          <h2>No databases yet</h2>
          <p>They are made by name, and are files in /hoody/databases.</p>
          <button type="button" class="button main" onClick={() => void make()}>
            Make a database
          </button>
        </div>
      ) : (
        <div class="body">
          <Tables />
          <main class="work">
            <Editor />
            {desk.past.value ? <Past /> : <Outcome />}
          </main>
        </div>
      )}
      <MenuHost />
      <DialogHost />
      <ToastHost />
    </>
  )
}

async function make() {
  const name = await request({
    title: 'Make a database',
    label: 'Name',
    action: 'Make',
    check: (name) => (!name.trim() ? 'It needs a name.' : /[/\\]/.test(name) ? 'A name has no slashes.' : null),
  })
  if (name === null) return
  const why = await desk.make(name.trim())
  if (why) complain(why)
}

function Bar() {
  const choices = (): Entry[] => [
    ...desk.databases.value.map((one) => ({ label: one.name, note: size(one.bytes), checked: one.path === desk.db.value, do: () => void desk.choose(one.path) })),
    '-',
    { label: 'Make a database', icon: Plus, do: () => void make() },
  ]
  return (
    <header class="bar">
      <PageMark slug="sqlite" />
      <span class="bar-rule" />
      {desk.db.value ? (
        <MenuButton id="databases" class="chooser" label="Database" entries={choices}>
          <Icon of={DatabaseIcon} size={15} class="faint" />
          <span class="cut">{nameOf(desk.db.value)}</span>
        </MenuButton>
      ) : null}
      <span class="spread" />
      {desk.db.value ? (
        <>
          <button type="button" id="open-tables" class="button plain tables-opener" aria-expanded={desk.drawer.value} onClick={() => (desk.drawer.value = !desk.drawer.value)}>
            <Icon of={TableIcon} size={15} />
            <span>Tables</span>
          </button>
          <MenuButton id="more" icon={EllipsisVertical} label="More" entries={more} />
        </>
      ) : null}
    </header>
  )
}

function more(): Entry[] {
  return [
    { label: 'Refresh', icon: RefreshCw, do: () => void desk.load() },
    { label: 'What was run', icon: History, do: () => void desk.showPast() },
    '-',
    { label: 'Download a copy', icon: Download, href: download(desk.db.value, 'sqlite') },
    { label: 'Download as SQL', icon: Download, href: download(desk.db.value, 'sql') },
    { label: 'Import a file', icon: FileUp, do: pick },
    '-',
    { label: 'Look for damage', icon: ShieldCheck, do: () => void desk.maintain('integrity_check') },
    { label: 'Rebuild without gaps', icon: Zap, do: () => void desk.maintain('vacuum') },
    '-',
    {
      label: 'Remove this database',
      icon: Trash2,
      danger: true,
      do: () =>
        void agree(`Remove ${nameOf(desk.db.value)}?`, 'The file and all that is in it are gone. Nothing brings them back.', 'Remove', 'danger').then((agreed) => {
          if (agreed) void desk.remove()
        }),
    },
  ]
}

/** What a file is, by its name. */
const FORMATS: Record<string, string> = { db: 'sqlite', sqlite: 'sqlite', sqlite3: 'sqlite', sql: 'sql', csv: 'csv', jsonl: 'jsonl', ndjson: 'jsonl' }

function pick() {
  const input = document.createElement('input')
  input.type = 'file'
  input.accept = Object.keys(FORMATS)
    .map((ending) => `.${ending}`)
    .join(',')
  input.onchange = () => {
    const file = input.files?.[0]
    if (file) void importFile(file)
  }
  input.click()
}

async function importFile(file: File) {
  const [, stem = file.name, ending = ''] = /^(.*)\.([^.]+)$/.exec(file.name) ?? []
  const format = FORMATS[ending.toLowerCase()]
  if (!format) return complain(`${file.name} is none of .${Object.keys(FORMATS).join(', .')}.`)
  if (format === 'sqlite' || format === 'sql') return desk.take(file, null, format)
  const table = await request({
    title: `Import ${file.name}`,
    label: 'Table',
    value: stem.replace(/\W+/g, '_'),
    action: 'Import',
    check: (name) => (name.trim() ? null : 'It needs a table.'),
  })
  if (table !== null) await desk.take(file, table.trim(), format)
}

function Tables() {
  const tables = desk.tables.value
  return (
    <>
      {desk.drawer.value && <div class="shade" onClick={() => (desk.drawer.value = false)} />}
      <nav class={`tables${desk.drawer.value ? ' open' : ''}`} aria-label="Tables">
        {desk.broken.value ? (
          <p class="fault note" role="alert">
            {desk.broken.value}
          </p>
        ) : tables.length === 0 ? (
          <p class="faint note">No tables yet. Make one with CREATE TABLE.</p>
        ) : (
          tables.map((table) => <TableEntry key={table.name} table={table} />)
        )}
      </nav>
    </>
  )
}

function TableEntry({ table }: { table: Table }) {
  const entries = (): Entry[] => [
    { label: 'Show rows', icon: Eye, do: () => void desk.show(table.name) },
    { label: 'Show its statement', icon: Copy, do: () => ((desk.sql.value = table.sql ?? ''), (desk.drawer.value = false)) },
    '-',
    { label: 'Download as CSV', icon: Download, href: download(desk.db.value, 'csv', table.name) },
    { label: 'Download as JSON lines', icon: Download, href: download(desk.db.value, 'jsonl', table.name) },
  ]
  return (
    <details class="table">
      <summary>
        <Icon of={table.kind === 'view' ? Eye : TableIcon} size={14} class="faint" />
        <button
          type="button"
          class="table-name cut"
          title={`Show rows of ${table.name}`}
          onClick={(event) => {
            event.preventDefault()
            void desk.show(table.name)
          }}
        >
          {table.name}
        </button>
        <MenuButton class="table-more" icon={EllipsisVertical} label={`More of ${table.name}`} entries={entries} />
      </summary>
      <ul>
        {table.columns.map((column) => (
          <li key={column.name} title={column.default ? `default ${column.default}` : undefined}>
            <span class="cut">{column.name}</span>
            {column.primary_key > 0 && <Icon of={Key} size={11} class="faint" />}
            <span class="faint mono spread-right cut">
              {column.type.toLowerCase()}
              {column.not_null ? ' not null' : ''}
            </span>
          </li>
        ))}
      </ul>
    </details>
  )
}

function Editor() {
  const field = useRef<HTMLTextAreaElement>(null)
  const running = desk.outcome.value.is === 'running'
  const text = desk.sql.value
  const wanted = statements(text)
  const one = wanted[0]
  const shares = wanted.length === 1 && one !== undefined && asks(one) && !/\breturning\b/i.test(one)
  return (
    <section class="editor" aria-label="Query">
      <textarea
        ref={field}
        id="sql"
        class="input mono"
        aria-label="SQL"
        placeholder="SELECT …"
        value={text}
        rows={Math.min(14, Math.max(4, text.split('\n').length))}
        spellcheck={false}
        autocomplete="off"
        autocapitalize="off"
        onInput={(event) => (desk.sql.value = event.currentTarget.value)}
        onKeyDown={(event) => {
          if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) {
            event.preventDefault()
            void desk.run()
          }
        }}
      />
      <div class="editor-foot">
        {running ? (
          <button type="button" id="stop" class="button" onClick={desk.stop}>
            <Icon of={Square} size={14} />
            Stop
          </button>
        ) : (
          <button type="button" id="run" class="button main" disabled={wanted.length === 0} title="Run (Ctrl+Enter)" onClick={() => void desk.run()}>
            <Icon of={Play} size={14} />
            Run
          </button>
        )}
        <span id="note" class="faint note cut" role="status">
          {note(wanted.length)}
        </span>
        <span class="spread" />
        <IconButton icon={Link} id="share" label="Copy a link to this query" disabled={!shares} onClick={() => void copy(desk.shareLink(), 'A link to this query is copied: whoever has it may run it.')} />
        <IconButton icon={History} id="past" label="What was run" pressed={desk.past.value !== null} onClick={() => (desk.past.value ? (desk.past.value = null) : void desk.showPast())} />
      </div>
    </section>
  )
}

function note(wanted: number): string {
  const outcome = desk.outcome.value
  if (outcome.is === 'running') return 'Running…'
  if (outcome.is === 'done') return outcome.note
  return wanted > 1 ? `${wanted} statements, one transaction` : ''
}

async function copy(text: string, done: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(text)
    tell(done)
  } catch {
    complain('The browser does not let this page copy. Select the text and copy it by hand.')
  }
}

function Outcome() {
  const outcome = desk.outcome.value
  if (outcome.is === 'running')
    return (
      <div class="empty" aria-busy="true">
        <span class="spinner" />
      </div>
    )
  if (outcome.is === 'failed')
    return (
      <div class="failure" id="failure" role="alert">
        <Icon of={CircleAlert} size={16} />
        <p>{outcome.why}</p>
      </div>
    )
  if (outcome.is === 'nothing')
    return (
      <div class="empty" id="idle">
        <Icon of={TableIcon} size={36} />
        <p>Choose a table, or write a query and run it with Ctrl+Enter.</p>
      </div>
    )
  const shown = outcome.results.filter((result) => result.changed === null)
  if (shown.length === 0)
    return (
      <div class="empty" id="changed">
        <p>{outcome.note}</p>
      </div>
    )
  return (
    <div class="results">
      {shown.map((result, at) => (
        <Grid key={at} result={result} many={shown.length > 1} />
      ))}
    </div>
  )
}

function Grid({ result, many }: { result: Result; many: boolean }) {
  const rows = result.rows.slice(0, DRAWN)
  const left = result.rows.length - rows.length
  return (
    <section class="grid-of">
      {many && <p class="grid-sql mono faint cut">{result.sql}</p>}
      <div class="grid-place" tabIndex={0} aria-label="Rows" role="region">
        <table class="grid">
          <thead>
            <tr>
              <th class="number" scope="col">
                <IconButton icon={Copy} label="Copy as a table" onClick={() => void copy(tabs(result.columns, result.rows), 'The rows are copied.')} />
              </th>
              {result.columns.map((column, at) => (
                <th key={at} scope="col">
                  {column}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {rows.map((row, at) => (
              <tr key={at}>
                <td class="number faint">{at + 1}</td>
                {row.map((value, column) => {
                  const { kind, text, title } = cell(value)
                  return (
                    <td key={column} class={kind} title={title || undefined}>
                      {text}
                    </td>
                  )
                })}
              </tr>
            ))}
          </tbody>
        </table>
        {result.rows.length === 0 && <p class="faint note">No rows.</p>}
      </div>
      {(left > 0 || result.truncated) && (
        <p class="faint note" id="truncated">
          {left > 0 ? `The first ${DRAWN} of ${result.rows.length} rows are shown. ` : ''}
          {result.truncated ? 'There are more rows than the service sends at once: add LIMIT and OFFSET, or download the table.' : ''}
        </p>
      )}
    </section>
  )
}

function Past() {
  const past = desk.past.value ?? []
  return (
    <section class="past" aria-label="What was run">
      <header class="past-head">
        <h2>What was run</h2>
        <span class="faint note">values are left out</span>
        <span class="spread" />
        <IconButton icon={Eraser} label="Clear the history" disabled={past.length === 0} onClick={() => void desk.clearPast()} />
        <IconButton icon={X} label="Close the history" onClick={() => (desk.past.value = null)} />
      </header>
      {past.length === 0 ? (
        <p class="faint note">Nothing yet.</p>
      ) : (
        <ul>
          {past.map((one) => (
            <li key={one.id}>
              <button type="button" class="past-one" title={one.error ?? undefined} onClick={() => ((desk.sql.value = one.sql), (desk.past.value = null), document.getElementById('sql')?.focus())}>
                <span class={`dot ${one.success ? 'good' : 'bad'}`} />
                <span class="mono cut spread-text">{one.sql}</span>
                <span class="faint past-note">
                  {one.success ? `${one.rows} · ${took(one.duration_ms)}` : 'failed'}
                </span>
                <time class="faint past-time" title={whenInFull(one.executed_at * 1000)}>
                  {when(one.executed_at * 1000, Date.now())}
                </time>
              </button>
            </li>
          ))}
        </ul>
      )}
    </section>
  )
}
