// Files on their way to the computer: a queue, a few at a time, each with its progress.
import { computed, signal } from '@preact/signals'
import { words } from '../shared/call.ts'
import { send, type Sending } from './service.ts'

/** Files sent at once: enough to fill a line, few enough to leave it usable. */
const AT_ONCE = 3
/** Finished rows kept in the list. */
const KEPT = 200

export type Stage = 'waiting' | 'sending' | 'done' | 'failed'

export interface Upload {
  id: number
  name: string
  path: string
  size: number
  sent: number
  stage: Stage
  why: string
}

interface Job {
  upload: Upload
  body: Blob
  before: (() => Promise<void>) | null
  sending: Sending | null
}

const jobs = new Map<number, Job>()
let next = 1
let busy = 0

export const uploads = signal<Upload[]>([])
export const running = computed(() => uploads.value.some((upload) => upload.stage === 'waiting' || upload.stage === 'sending'))
export const totals = computed(() => {
  let size = 0
  let sent = 0
  let left = 0
  let failed = 0
  for (const upload of uploads.value) {
    if (upload.stage === 'failed') {
      failed++
      continue
    }
    size += upload.size
    sent += upload.stage === 'done' ? upload.size : upload.sent
    if (upload.stage !== 'done') left++
  }
  return { size, sent, left, failed, share: size > 0 ? sent / size : left > 0 ? 0 : 1 }
})

/** Told the path of every file that has arrived. */
export const arrived: { now: (path: string) => void } = { now: () => undefined }

/** `before` runs first, as making the folder does. */
export function put(path: string, body: Blob, before: (() => Promise<void>) | null = null): void {
  const upload: Upload = { id: next++, name: path.slice(path.lastIndexOf('/') + 1), path, size: body.size, sent: 0, stage: 'waiting', why: '' }
  jobs.set(upload.id, { upload, body, before, sending: null })
  show(upload)
  pump()
}

export function again(id: number): void {
  const job = jobs.get(id)
  if (!job || job.upload.stage !== 'failed') return
  change(job, { stage: 'waiting', sent: 0, why: '' })
  pump()
}

/** Stop it if it runs, and forget it. */
export function drop(id: number): void {
  const job = jobs.get(id)
  jobs.delete(id)
  uploads.value = uploads.value.filter((upload) => upload.id !== id)
  job?.sending?.cancel()
}

export function clear(): void {
  for (const upload of uploads.value) if (upload.stage === 'done' || upload.stage === 'failed') drop(upload.id)
}

function pump(): void {
  while (busy < AT_ONCE) {
    const upload = uploads.value.find((one) => one.stage === 'waiting')
    const job = upload && jobs.get(upload.id)
    if (!job) return
    busy++
    change(job, { stage: 'sending' })
    void run(job).finally(() => {
      busy--
      pump()
    })
  }
}

async function run(job: Job): Promise<void> {
  const { path, id } = job.upload
  try {
    await job.before?.()
    if (!jobs.has(id)) return
    let painted = 0
    job.sending = send(path, job.body, (sent) => {
      const now = performance.now()
      if (now - painted < 80) return
      painted = now
      change(job, { sent })
    })
    await job.sending.done
    change(job, { stage: 'done', sent: job.upload.size })
    arrived.now(path)
  } catch (error) {
    if (error instanceof DOMException && error.name === 'AbortError') return
    change(job, { stage: 'failed', why: words(error) })
  } finally {
    job.sending = null
  }
}

function change(job: Job, what: Partial<Upload>): void {
  job.upload = { ...job.upload, ...what }
  if (jobs.has(job.upload.id)) show(job.upload)
}

function show(upload: Upload): void {
  const known = uploads.value.some((one) => one.id === upload.id)
  const list = known ? uploads.value.map((one) => (one.id === upload.id ? upload : one)) : [...uploads.value, upload]
  if (list.length > KEPT) {
    const done = list.findIndex((one) => one.stage === 'done')
    if (done >= 0) {
      jobs.delete(list[done]?.id ?? 0)
      list.splice(done, 1)
    }
  }
  uploads.value = list
}
