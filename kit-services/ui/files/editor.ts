// The editor, loaded when a text is shown.
import { defaultKeymap, history, historyKeymap, indentWithTab } from '@codemirror/commands'
import { HighlightStyle, LanguageDescription, LanguageSupport, StreamLanguage, bracketMatching, indentOnInput, indentUnit, syntaxHighlighting, type StreamParser } from '@codemirror/language'
import { highlightSelectionMatches, search, searchKeymap } from '@codemirror/search'
import { Compartment, EditorState, Text } from '@codemirror/state'
import { EditorView, drawSelection, highlightActiveLine, highlightActiveLineGutter, keymap, lineNumbers } from '@codemirror/view'
import { tags as t } from '@lezer/highlight'

export interface Editor {
  /** The text as it is now, and how to say later that it was saved. */
  take(): { text: string; saved: () => void }
  editable(on: boolean): void
  focus(): void
  close(): void
}

export interface Wants {
  name: string
  text: string
  ends: '\n' | '\r\n'
  changed: (dirty: boolean) => void
  save: () => void
  leave: () => void
}

/** Longer lines are not coloured: they are data. */
const LONGEST_LINE = 5000

export async function open(place: HTMLElement, wants: Wants): Promise<Editor> {
  const language = await languageOf(wants)
  const mode = new Compartment()
  const still = [EditorState.readOnly.of(true), EditorView.editable.of(false)]
  const live = [EditorState.readOnly.of(false), EditorView.editable.of(true), highlightActiveLine(), highlightActiveLineGutter()]
  let saved: Text | null = null
  const state = EditorState.create({
    doc: wants.text,
    extensions: [
      EditorState.lineSeparator.of(wants.ends),
      lineNumbers(),
      history(),
      drawSelection(),
      indentOnInput(),
      indentUnit.of(/\t/.test(wants.text.slice(0, 20_000)) ? '\t' : '  '),
      bracketMatching(),
      highlightSelectionMatches(),
      search({ top: true }),
      syntaxHighlighting(COLOURS),
      EditorView.lineWrapping,
      LOOKS,
      keymap.of([
        { key: 'Mod-s', preventDefault: true, run: does(wants.save) },
        ...searchKeymap,
        ...defaultKeymap,
        ...historyKeymap,
        indentWithTab,
        // the way out by keyboard: Tab indents
        { key: 'Escape', run: does(wants.leave) },
      ]),
      EditorView.contentAttributes.of({ 'aria-label': `Contents of ${wants.name}` }),
      EditorView.updateListener.of((update) => {
        if (update.docChanged) wants.changed(saved === null || !update.state.doc.eq(saved))
      }),
      mode.of(still),
      ...(language ? [language] : []),
    ],
  })
  saved = state.doc
  place.textContent = ''
  const view = new EditorView({ state, parent: place })
  return {
    take: () => {
      const { doc } = view.state
      return {
        text: view.state.sliceDoc(),
        saved: () => {
          saved = doc
          // typing goes on while a save is under way
          wants.changed(!view.state.doc.eq(doc))
        },
      }
    },
    editable: (on) => view.dispatch({ effects: mode.reconfigure(on ? live : still) }),
    focus: () => view.focus(),
    close: () => view.destroy(),
  }
}

const does = (act: () => void) => () => {
  act()
  return true
}

const stream = (parser: StreamParser<unknown>) => new LanguageSupport(StreamLanguage.define(parser))

const LANGUAGES = [
  LanguageDescription.of({ name: 'js', extensions: ['js', 'mjs', 'cjs', 'jsx', 'ts', 'mts', 'cts', 'tsx', 'vue', 'svelte'], load: () => import('@codemirror/lang-javascript').then((m) => m.javascript({ jsx: true, typescript: true })) }),
  LanguageDescription.of({ name: 'json', extensions: ['json', 'jsonc', 'json5', 'lock'], load: () => import('@codemirror/lang-json').then((m) => m.json()) }),
  LanguageDescription.of({ name: 'html', extensions: ['html', 'htm', 'xhtml'], load: () => import('@codemirror/lang-html').then((m) => m.html()) }),
  LanguageDescription.of({ name: 'css', extensions: ['css', 'scss', 'less'], load: () => import('@codemirror/lang-css').then((m) => m.css()) }),
  LanguageDescription.of({ name: 'markdown', extensions: ['md', 'markdown'], load: () => import('@codemirror/lang-markdown').then((m) => m.markdown()) }),
  LanguageDescription.of({ name: 'python', extensions: ['py', 'pyi'], load: () => import('@codemirror/lang-python').then((m) => m.python()) }),
  LanguageDescription.of({ name: 'rust', extensions: ['rs'], load: () => import('@codemirror/lang-rust').then((m) => m.rust()) }),
  LanguageDescription.of({ name: 'yaml', extensions: ['yaml', 'yml'], load: () => import('@codemirror/lang-yaml').then((m) => m.yaml()) }),
  LanguageDescription.of({ name: 'sql', extensions: ['sql'], load: () => import('@codemirror/lang-sql').then((m) => m.sql()) }),
  LanguageDescription.of({ name: 'shell', extensions: ['sh', 'bash', 'zsh', 'env'], filename: /^\.(bash|zsh|profile)/, load: () => import('@codemirror/legacy-modes/mode/shell').then((m) => stream(m.shell)) }),
  LanguageDescription.of({ name: 'toml', extensions: ['toml'], load: () => import('@codemirror/legacy-modes/mode/toml').then((m) => stream(m.toml)) }),
  LanguageDescription.of({ name: 'ini', extensions: ['ini', 'conf', 'cfg', 'service', 'timer', 'socket', 'properties'], load: () => import('@codemirror/legacy-modes/mode/properties').then((m) => stream(m.properties)) }),
  LanguageDescription.of({ name: 'dockerfile', filename: /^(Dockerfile|Containerfile)/i, load: () => import('@codemirror/legacy-modes/mode/dockerfile').then((m) => stream(m.dockerFile)) }),
  LanguageDescription.of({ name: 'go', extensions: ['go'], load: () => import('@codemirror/legacy-modes/mode/go').then((m) => stream(m.go)) }),
  LanguageDescription.of({ name: 'c', extensions: ['c', 'h', 'cc', 'cpp', 'hpp', 'java', 'kt'], load: () => import('@codemirror/legacy-modes/mode/clike').then((m) => stream(m.cpp)) }),
  LanguageDescription.of({ name: 'ruby', extensions: ['rb'], filename: /^(Gemfile|Rakefile)/, load: () => import('@codemirror/legacy-modes/mode/ruby').then((m) => stream(m.ruby)) }),
  LanguageDescription.of({ name: 'lua', extensions: ['lua'], load: () => import('@codemirror/legacy-modes/mode/lua').then((m) => stream(m.lua)) }),
  LanguageDescription.of({ name: 'xml', extensions: ['xml', 'svg', 'plist'], load: () => import('@codemirror/legacy-modes/mode/xml').then((m) => stream(m.xml)) }),
  LanguageDescription.of({ name: 'diff', extensions: ['diff', 'patch'], load: () => import('@codemirror/legacy-modes/mode/diff').then((m) => stream(m.diff)) }),
  LanguageDescription.of({ name: 'nginx', filename: /nginx.*\.conf$/, load: () => import('@codemirror/legacy-modes/mode/nginx').then((m) => stream(m.nginx)) }),
]

async function languageOf({ name, text }: Wants): Promise<LanguageSupport | null> {
  if (text.split('\n', 400).some((line) => line.length > LONGEST_LINE)) return null
  const shebang = /^#!.*\b(sh|bash|zsh|python|node|deno|ruby)/.exec(text)?.[1]
  const scripts: Record<string, string> = { sh: 'shell', bash: 'shell', zsh: 'shell', python: 'python', node: 'js', deno: 'js', ruby: 'ruby' }
  const found = LanguageDescription.matchFilename(LANGUAGES, name) ?? LANGUAGES.find((one) => shebang && one.name === scripts[shebang])
  return found ? found.load().catch(() => null) : null
}

const COLOURS = HighlightStyle.define([
  { tag: [t.keyword, t.operatorKeyword, t.modifier, t.controlKeyword], class: 'hl-keyword' },
  { tag: [t.string, t.special(t.string), t.regexp, t.inserted], class: 'hl-string' },
  { tag: [t.number, t.bool, t.null, t.atom, t.unit], class: 'hl-number' },
  { tag: [t.comment, t.meta, t.processingInstruction], class: 'hl-comment' },
  { tag: [t.function(t.variableName), t.function(t.propertyName), t.macroName, t.labelName], class: 'hl-function' },
  { tag: [t.typeName, t.className, t.namespace, t.tagName], class: 'hl-type' },
  { tag: [t.propertyName, t.attributeName, t.definition(t.propertyName)], class: 'hl-property' },
  { tag: [t.heading, t.strong], class: 'hl-strong' },
  { tag: t.emphasis, class: 'hl-emphasis' },
  { tag: [t.link, t.url], class: 'hl-link' },
  { tag: [t.invalid, t.deleted], class: 'hl-wrong' },
])

const LOOKS = EditorView.theme({
  '&': { height: '100%', fontSize: '13px', color: 'var(--text)', backgroundColor: 'transparent' },
  '&.cm-focused': { outline: 'none' },
  '.cm-scroller': { fontFamily: 'var(--mono)', lineHeight: '1.55', overflow: 'auto' },
  '.cm-content': { padding: '10px 0', caretColor: 'var(--accent)' },
  '.cm-line': { padding: '0 16px 0 10px' },
  '.cm-cursor': { borderLeftColor: 'var(--accent)', borderLeftWidth: '2px' },
  '.cm-gutters': { backgroundColor: 'transparent', color: 'var(--text-faint)', border: 'none', paddingLeft: '6px' },
  '.cm-lineNumbers .cm-gutterElement': { padding: '0 8px 0 6px', minWidth: '30px' },
  '.cm-activeLine': { backgroundColor: 'var(--hover)' },
  '.cm-activeLineGutter': { backgroundColor: 'transparent', color: 'var(--text)' },
  '&.cm-focused > .cm-scroller > .cm-selectionLayer .cm-selectionBackground, .cm-selectionBackground': { background: 'var(--select) !important' },
  '.cm-selectionMatch': { backgroundColor: 'var(--press)' },
  '.cm-panels': { backgroundColor: 'var(--surface)', color: 'inherit', borderColor: 'var(--line)' },
  '.cm-panel.cm-search': { padding: '8px 10px', fontFamily: 'var(--sans)' },
  '.cm-textfield': { border: '1px solid var(--line-strong)', borderRadius: '6px', backgroundColor: 'var(--ground)', padding: '4px 8px' },
  '.cm-button': { border: '1px solid var(--line-strong)', borderRadius: '6px', backgroundImage: 'none', backgroundColor: 'var(--raised)', padding: '3px 10px' },
})
