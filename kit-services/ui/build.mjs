// Builds every page: a folder with an index.html is a page, dist/<folder>/ is what the kit serves.
import { mkdir, readFile, readdir, rm, writeFile } from 'node:fs/promises'
import { existsSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { gzipSync } from 'node:zlib'
import { build, transformWithEsbuild } from 'vite'

const HERE = dirname(fileURLToPath(import.meta.url))

/** Where the kit serves `dist/<service>/`, below the root of the service. */
const SERVED_AT = '_hoody/ui'

/** What a page may load before it is usable, compressed: a phone on a bad line waits for it. */
const BUDGET = 200 << 10

/** Fonts of the first screen. */
const FIRST_FONTS = (/** @type {string} */ service) => (service === 'terminal' ? /\/(inter|jetbrains-mono)-/ : /\/inter-/)

/** Parts that a page asks for as soon as it is drawn. */
const EARLY_CHUNKS = ['screen']

const services = (await readdir(HERE, { withFileTypes: true }))
  .filter((entry) => entry.isDirectory() && existsSync(join(HERE, entry.name, 'index.html')))
  .map((entry) => entry.name)
  .filter((name) => !['dist', 'node_modules'].includes(name))
  .sort()

/**
 * The theme is chosen before the first paint by a script of its own, in front of everything else.
 * @param {string} service
 * @returns {import('vite').Plugin}
 */
function head(service) {
  let reference = ''
  return {
    name: 'head',
    async buildStart() {
      const path = join(HERE, 'shared/boot.ts')
      const { code } = await transformWithEsbuild(await readFile(path, 'utf8'), path, {
        minify: true,
        format: 'iife',
        sourcemap: false,
      })
      reference = this.emitFile({ type: 'asset', name: 'boot.js', source: code })
    },
    transformIndexHtml: {
      order: 'post',
      handler(_html, context) {
        const at = (/** @type {string} */ file) => `./${SERVED_AT}/${service}/${file}`
        const files = Object.values(context.bundle ?? {})
        const boot = files.find((file) => file.type === 'asset' && file.names.includes('boot.js'))
        if (!boot) throw new Error(`no boot script was emitted (${reference})`)
        // what the page fetches for itself as soon as it runs, fetched beside it
        const soon = files.filter((file) => file.type === 'chunk' && EARLY_CHUNKS.includes(file.name))
        return [
          // from the root: where that is elsewhere, the page sets the theme itself, a moment later
          { tag: 'script', attrs: { src: at(boot.fileName).slice(1) }, injectTo: 'head' },
          ...soon.map((chunk) => ({
            tag: 'link',
            attrs: { rel: 'modulepreload', href: at(chunk.fileName), crossorigin: '' },
            injectTo: /** @type {const} */ ('head'),
          })),
        ]
      },
    },
  }
}

/**
 * A page's styles stand in the page: they are small, and the first paint waits for nothing else.
 * @param {string} service
 * @returns {import('vite').Plugin}
 */
function styles(service) {
  return {
    name: 'styles',
    enforce: 'post',
    generateBundle(_options, bundle) {
      const page = bundle['index.html']
      if (page?.type !== 'asset') throw new Error('the build made no page')
      page.source = String(page.source).replace(/<link rel="stylesheet"[^>]*href="([^"]+)"[^>]*>/g, (_link, href) => {
        const name = href.replace(`./${SERVED_AT}/${service}/`, '')
        const sheet = bundle[name]
        if (sheet?.type !== 'asset') throw new Error(`no stylesheet ${name}`)
        delete bundle[name]
        // what it names stood beside it
        const css = String(sheet.source)
          .trim()
          .replace(/url\((?:\.\/)?([\w-]+\.woff2)\)( format\([^)]*\))?/g, (_url, file, format = '') =>
            ['.', ''].map((from) => `url(${from}/${SERVED_AT}/${service}/assets/${file})${format}`).join(','),
          )
        return `<style>${css}</style>`
      })
      // The root of the service is the root of its host, but for callers inside a container, who
      // name the service in the path; and a page may stand below the root. Each script is named
      // both ways: where the names agree it is loaded once, elsewhere one of the two is there.
      page.source = page.source.replace(/<script[^>]*src="\.(\/[^"]+)"[^>]*><\/script>/g, (tag, path) => `${tag}${tag.replace(`".${path}"`, `"${path}"`)}`)
    },
  }
}

/**
 * The licences of what a page carries, beside it.
 * @param {Set<string>} packages
 */
async function notices(packages) {
  const parts = []
  for (const name of [...packages].sort()) {
    const root = join(HERE, 'node_modules', name)
    const { version, license } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8'))
    const file = (await readdir(root)).find((entry) => /^(licen[cs]e|copying)/i.test(entry))
    const text = file ? await readFile(join(root, file), 'utf8') : ''
    parts.push(`${name} ${version} (${license})\n\n${text.trim()}\n`)
  }
  return parts.join(`\n${'-'.repeat(80)}\n\n`)
}

await rm(join(HERE, 'dist'), { recursive: true, force: true })
let over = false
for (const service of services) {
  /** @type {Set<string>} */
  const packages = new Set()
  const result = await build({
    configFile: false,
    root: join(HERE, service),
    base: './',
    logLevel: 'warn',
    esbuild: { jsx: 'automatic', jsxImportSource: 'preact', legalComments: 'none' },
    experimental: {
      renderBuiltUrl: (file, { hostType }) =>
        hostType === 'html' ? `./${SERVED_AT}/${service}/${file}` : { relative: true },
    },
    plugins: [
      head(service),
      styles(service),
      {
        name: 'packages',
        generateBundle() {
          for (const id of this.getModuleIds()) {
            const found = /node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(id)
            if (found?.[1]) packages.add(found[1])
          }
        },
      },
    ],
    build: {
      outDir: join(HERE, 'dist', service),
      emptyOutDir: true,
      target: 'es2022',
      modulePreload: { polyfill: false },
      cssCodeSplit: false,
      assetsInlineLimit: 0,
      reportCompressedSize: false,
    },
  })
  packages.delete('vite')
  packages.add('@fontsource-variable/inter').add('@fontsource-variable/jetbrains-mono')
  await mkdir(join(HERE, 'dist', service), { recursive: true })
  await writeFile(join(HERE, 'dist', service, 'licenses.txt'), await notices(packages))
  over = (await report(service, result)) || over
}
if (over) {
  console.error(`a page is over its budget of ${BUDGET >> 10} KiB compressed`)
  process.exit(1)
}

/**
 * Prints what a page weighs: what it loads at once, and what it loads when asked.
 * @param {string} service
 * @param {Awaited<ReturnType<typeof build>>} result
 */
async function report(service, result) {
  const output = Array.isArray(result) ? result[0] : result
  if (!output || !('output' in output)) throw new Error('vite built nothing')
  const html = await readFile(join(HERE, 'dist', service, 'index.html'), 'utf8')
  let first = gzipSync(html).length
  let later = 0
  for (const file of output.output) {
    const bytes = await readFile(join(HERE, 'dist', service, file.fileName))
    const weight = /\.woff2$/.test(file.fileName) ? bytes.length : gzipSync(bytes, { level: 6 }).length
    if (file.fileName.endsWith('.html')) continue
    // what a tag names is fetched at once, and the fonts of the page as soon as there is text
    if (html.includes(`/${file.fileName}"`) || FIRST_FONTS(service).test(file.fileName)) first += weight
    else later += weight
    console.log(`  ${relative(HERE, join(HERE, 'dist', service, file.fileName)).padEnd(64)} ${kib(weight)}`)
  }
  console.log(`${service}: ${kib(first)} at first, ${kib(later)} when needed (compressed)`)
  return first > BUDGET
}

/** @param {number} bytes */
function kib(bytes) {
  return `${(bytes / 1024).toFixed(1).padStart(7)} KiB`
}
