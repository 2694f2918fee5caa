// What a name promises: the picture beside it, and how it is shown.
import type { IconNode } from 'lucide'
import { Archive, Database, File, FileCode, FileImage, FileMusic, FileText, FileVideo, Folder, FolderSymlink } from 'lucide'

export type Show = 'image' | 'audio' | 'video' | 'pdf' | 'text' | 'bytes'

export interface Kind {
  show: Show
  icon: IconNode
  /** Names the colour in the stylesheet. */
  tint: 'folder' | 'image' | 'media' | 'code' | 'archive' | 'plain'
}

const FOLDER: Kind = { show: 'bytes', icon: Folder, tint: 'folder' }
const FOLDER_LINK: Kind = { show: 'bytes', icon: FolderSymlink, tint: 'folder' }
const IMAGE: Kind = { show: 'image', icon: FileImage, tint: 'image' }
const AUDIO: Kind = { show: 'audio', icon: FileMusic, tint: 'media' }
const VIDEO: Kind = { show: 'video', icon: FileVideo, tint: 'media' }
const PDF: Kind = { show: 'pdf', icon: FileText, tint: 'media' }
const CODE: Kind = { show: 'text', icon: FileCode, tint: 'code' }
const TEXT: Kind = { show: 'text', icon: FileText, tint: 'plain' }
const ARCHIVE: Kind = { show: 'bytes', icon: Archive, tint: 'archive' }
const DATA: Kind = { show: 'bytes', icon: Database, tint: 'archive' }
/** A name that promises nothing: its bytes decide. */
const OTHER: Kind = { show: 'text', icon: File, tint: 'plain' }

const EXTENSIONS: [Kind, string][] = [
  [IMAGE, 'png jpg jpeg gif webp avif svg bmp ico apng'],
  [AUDIO, 'mp3 wav ogg oga opus flac m4a aac weba'],
  [VIDEO, 'mp4 m4v webm ogv mov mkv'],
  [PDF, 'pdf'],
  [
    CODE,
    'js mjs cjs jsx ts mts cts tsx json jsonc json5 html htm xhtml vue svelte css scss less py rs go c h cc cpp hpp java kt swift rb php lua pl r sh bash zsh fish ps1 sql yaml yml toml ini conf cfg xml nix tf hcl proto graphql dockerfile makefile cmake gradle zig dart ex exs erl hs ml clj scala vim diff patch service timer socket rules',
  ],
  [TEXT, 'txt md markdown rst adoc log csv tsv env lock tex srt vtt'],
  [ARCHIVE, 'zip tar gz tgz bz2 xz zst 7z rar jar war deb rpm apk iso img dmg cpio'],
  [DATA, 'db sqlite sqlite3 mdb parquet'],
  [{ show: 'bytes', icon: File, tint: 'plain' }, 'exe dll so o a bin dat class pyc wasm woff woff2 ttf otf eot doc docx xls xlsx ppt pptx odt ods'],
]

const BY_EXTENSION = new Map(EXTENSIONS.flatMap(([kind, list]) => list.split(' ').map((extension) => [extension, kind] as const)))

export function kindOf(name: string, folder: boolean, link = false): Kind {
  if (folder) return link ? FOLDER_LINK : FOLDER
  return BY_EXTENSION.get(extensionOf(name)) ?? OTHER
}

/** In lower case and without the dot; a whole name such as `Makefile` counts as one. */
export function extensionOf(name: string): string {
  const lower = name.toLowerCase()
  const at = lower.lastIndexOf('.')
  return at > 0 ? lower.slice(at + 1) : lower
}
