// Questions to the person, as promises. One at a time; a second one waits for the first.
import { signal } from '@preact/signals'
import type { ComponentChildren } from 'preact'
import { useLayoutEffect, useRef, useState } from 'preact/hooks'

export interface Choice<T> {
  label: string
  value: T
  kind?: 'main' | 'danger'
}

export interface Question<T> {
  title: string
  body?: ComponentChildren
  choices: Choice<T>[]
  wide?: boolean
}

export interface Request {
  title: string
  label: string
  value?: string
  /** How many characters of the value are selected at first; all unless said. */
  select?: number
  action: string
  /** Why this value cannot be taken, or null. */
  check?: (value: string) => string | null
}

type Shown =
  | { is: 'question'; question: Question<unknown>; answer: (value: unknown) => void }
  | { is: 'request'; request: Request; answer: (value: unknown) => void }
  | { is: 'custom'; draw: (answer: (value: unknown) => void) => ComponentChildren; wide: boolean; answer: (value: unknown) => void }

const queue = signal<Shown[]>([])

function show<T>(make: (answer: (value: unknown) => void) => Shown): Promise<T | null> {
  return new Promise((resolve) => {
    const shown: Shown = make((value) => {
      queue.value = queue.value.filter((other) => other !== shown)
      resolve(value as T | null)
    })
    queue.value = [...queue.value, shown]
  })
}

/** The value of the chosen answer; null when the person leaves the dialog. */
export function ask<T>(question: Question<T>): Promise<T | null> {
  return show<T>((answer) => ({ is: 'question', question: question as Question<unknown>, answer }))
}

/** Whether the person agrees. */
export async function agree(title: string, body: ComponentChildren, action: string, kind: 'main' | 'danger' = 'main'): Promise<boolean> {
  return (await ask({ title, body, choices: [{ label: action, value: true, kind }] })) === true
}

/** A line of text; null when the person leaves the dialog. */
export function request(what: Request): Promise<string | null> {
  return show<string>((answer) => ({ is: 'request', request: what, answer }))
}

/** A dialog that draws itself. */
export function custom<T>(draw: (answer: (value: T | null) => void) => ComponentChildren, wide = true): Promise<T | null> {
  return show<T>((answer) => ({ is: 'custom', draw, wide, answer }))
}

export function dialogOpen(): boolean {
  return queue.value.length > 0
}

/** Put once into every page. */
export function DialogHost() {
  const now = queue.value[0]
  const box = useRef<HTMLDialogElement>(null)

  // at once: the next key belongs to the dialog
  useLayoutEffect(() => {
    const dialog = box.current
    if (!now || !dialog) return
    const back = document.activeElement
    if (!dialog.open) dialog.showModal()
    const focus = dialog.querySelector<HTMLElement>('[data-focus]') ?? dialog.querySelector<HTMLElement>('button')
    focus?.focus()
    return () => {
      // the element goes with its dialog, and the browser then forgets where the focus was
      if (queue.value.length === 0 && back instanceof HTMLElement && back.isConnected) back.focus({ preventScroll: true })
    }
  }, [now])

  if (!now) return null
  const leave = () => now.answer(null)
  const wide = now.is === 'custom' ? now.wide : now.is === 'question' && now.question.wide
  return (
    <dialog
      ref={box}
      class={wide ? 'dialog wide' : 'dialog'}
      aria-labelledby="dialog-title"
      onCancel={(event) => {
        event.preventDefault()
        leave()
      }}
      onKeyDown={(event) => event.stopPropagation()}
      onPointerDown={(event) => {
        if (event.target === box.current) leave()
      }}
    >
      {now.is === 'question' && <QuestionBody {...now} />}
      {now.is === 'request' && <RequestBody {...now} />}
      {now.is === 'custom' && now.draw(now.answer)}
    </dialog>
  )
}

function QuestionBody({ question, answer }: Extract<Shown, { is: 'question' }>) {
  return (
    <>
      <div class="dialog-body">
        <h2 id="dialog-title">{question.title}</h2>
        {typeof question.body === 'string' ? <p>{question.body}</p> : question.body}
      </div>
      <div class="dialog-foot">
        <button type="button" class="button" onClick={() => answer(null)}>
          Cancel
        </button>
        {question.choices.map((choice, n) => (
          <button
            key={choice.label}
            type="button"
            class={`button${choice.kind ? ` ${choice.kind}` : ''}`}
            data-focus={n === question.choices.length - 1 ? '' : undefined}
            onClick={() => answer(choice.value)}
          >
            {choice.label}
          </button>
        ))}
      </div>
    </>
  )
}

function RequestBody({ request, answer }: Extract<Shown, { is: 'request' }>) {
  const [value, setValue] = useState(request.value ?? '')
  const [touched, setTouched] = useState(false)
  const field = useRef<HTMLInputElement>(null)
  useLayoutEffect(() => field.current?.setSelectionRange(0, request.select ?? request.value?.length ?? 0), [request])
  const wrong = request.check?.(value) ?? null
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault()
        setTouched(true)
        if (!wrong) answer(value)
      }}
    >
      <div class="dialog-body">
        <h2 id="dialog-title">{request.title}</h2>
        <label class="field">
          <span>{request.label}</span>
          <input
            ref={field}
            class="input"
            data-focus
            value={value}
            spellcheck={false}
            autocomplete="off"
            autocapitalize="off"
            aria-invalid={touched && wrong !== null}
            aria-describedby="dialog-fault"
            onInput={(event) => {
              setValue(event.currentTarget.value)
              setTouched(true)
            }}
          />
        </label>
        <div id="dialog-fault" class="fault" role="status">
          {touched ? wrong : null}
        </div>
      </div>
      <div class="dialog-foot">
        <button type="button" class="button" onClick={() => answer(null)}>
          Cancel
        </button>
        <button type="submit" class="button main" disabled={touched && wrong !== null}>
          {request.action}
        </button>
      </div>
    </form>
  )
}
