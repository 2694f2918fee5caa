// Files that were dropped onto a page or picked in the browser's dialog.

/** A file with its place below the folder it goes to. */
export interface Found {
  /** Names of folders on the way. */
  dirs: string[]
  file: File
}

/** Everything in a drop, folders walked. Must be called while the drop is being handled. */
export async function dropped(transfer: DataTransfer): Promise<{ files: Found[]; dirs: string[][] }> {
  const files: Found[] = []
  const dirs: string[][] = []
  const entries: FileSystemEntry[] = []
  for (const item of transfer.items) {
    if (item.kind !== 'file') continue
    const entry = item.webkitGetAsEntry()
    // what comes from another page and not from a disk has no entry
    const file = entry ? null : item.getAsFile()
    if (entry) entries.push(entry)
    if (file) files.push({ dirs: [], file })
  }
  const walk = async (entry: FileSystemEntry, above: string[]): Promise<void> => {
    if (entry.isFile) {
      const file = await new Promise<File>((done, fail) => (entry as FileSystemFileEntry).file(done, fail))
      files.push({ dirs: above, file })
      return
    }
    const here = [...above, entry.name]
    dirs.push(here)
    const reader = (entry as FileSystemDirectoryEntry).createReader()
    for (;;) {
      // a reader hands out a hundred entries at a time
      const part = await new Promise<FileSystemEntry[]>((done, fail) => reader.readEntries(done, fail))
      if (part.length === 0) return
      for (const child of part) await walk(child, here)
    }
  }
  for (const entry of entries) await walk(entry, [])
  return { files, dirs }
}

/** Files chosen in the browser's dialog; of a folder, with their places in it. */
export function picked(list: FileList): { files: Found[]; dirs: string[][] } {
  const files: Found[] = []
  const dirs = new Map<string, string[]>()
  for (const file of list) {
    const names = file.webkitRelativePath.split('/').filter(Boolean).slice(0, -1)
    files.push({ dirs: names, file })
    for (let n = 1; n <= names.length; n++) dirs.set(names.slice(0, n).join('/'), names.slice(0, n))
  }
  return { files, dirs: [...dirs.values()] }
}
