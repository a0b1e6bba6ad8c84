/**
 * containerd's `hosts.toml` as text (docs/hosts.md of containerd): what we write stands in marked blocks, and what others
 * wrote comes back to the byte when they are removed.
 *
 * Order is meaning in this file: hosts are tried as their tables stand, and a root key such as `server` that comes after
 * a table belongs to that table. So the first block goes behind the root keys and in front of the first table.
 *
 * Hosts that are not to be asked any more are suspended where they stand: turned into comments. So the file by itself
 * tells how it was before, and one atomic replacement of it configures or restores a registry.
 *
 * Text here has one character a byte (`latin1`): bytes that are no UTF-8 have to come back too.
 */
import { Data, Option, Result } from "effect"
import { isUtf8 } from "node:buffer"
import { parse, stringify, type TomlTable } from "smol-toml"

/**
 * Who is asked for a tag. `mirror`: the mirror, then upstream. `upstream-first`: upstream, and the mirror only where
 * upstream does not answer. `never`: upstream alone. Digests are always asked of the mirror first.
 */
export type TagResolution = "mirror" | "upstream-first" | "never"

export interface Mirror {
  /** URLs without a slash at the end, `http://127.0.0.1:5000`, in the order in which they are asked. */
  readonly targets: ReadonlyArray<string>
  readonly tagResolution: TagResolution
  /** Value of an `Authorization` header for the targets. */
  readonly authorization: Option.Option<string>
}

/** The registry that a file is for. */
export interface Upstream {
  /** Written as `server` where the file has none; without both containerd takes the registry's own name, over https. */
  readonly url: Option.Option<string>
  /** Hosts that are the registry itself and no mirror of it: their tables are never suspended. */
  readonly hosts: ReadonlyArray<string>
  /** Root options of a file that is made, such as `ca`. */
  readonly options: TomlTable
}

/** What has to be known to restore the file system, besides the text. */
export interface Undo {
  /** What was not there before. */
  readonly made: Option.Option<"file" | "directory">
  /** Permissions that the file had, where they were changed. */
  readonly mode: Option.Option<number>
}

/** The file cannot be changed so that containerd does what is wanted. */
export class HostsTomlUnusable extends Data.TaggedError("HostsTomlUnusable")<{ readonly reason: string }> {}

const mark = "# spegel-ts:"
const undoPattern = "(?:; undo: ([a-z0-9, ]+))?"

/** A TOML basic string; JSON's escapes are a subset of TOML's. */
const quote = (text: string) => JSON.stringify(text)

const parseTable = (text: string): Option.Option<TomlTable> => Result.getSuccess(Result.try(() => parse(text)))

const table = (url: string, capabilities: ReadonlyArray<string>, authorization: Option.Option<string>): string => {
  const lines = [
    `[host.${quote(url)}]`,
    `capabilities = [${capabilities.map(quote).join(", ")}]`,
    // containerd 2.1 and later; older ones ignore it, and wait 30 s for a host that drops packets.
    `dial_timeout = "200ms"`
  ]
  if (Option.isSome(authorization)) {
    lines.push(`[host.${quote(url)}.header]`, `authorization = [${quote(authorization.value)}]`)
  }
  return lines.join("\n")
}

/** Text that ends a line, with what has to be undone where it did not. */
const asLines = (text: string) =>
  text === "" || text.endsWith("\n") ? { text, undo: [] } : { text: `${text}\n`, undo: ["newline"] }

const undoList = (undo: ReadonlyArray<string>) => undo.length === 0 ? "" : `; undo: ${undo.join(", ")}`

/** Appends a block to `before`. */
const addBlock = (before: string, undo: ReadonlyArray<string>, lines: ReadonlyArray<string>): string => {
  const ended = asLines(before)
  return `${ended.text}${mark} begin${undoList([...ended.undo, ...undo])}\n`
    + `# Written by \`spegel configuration\`, removed by \`spegel cleanup\`; changes in this block are lost.\n`
    + `${lines.join("\n")}\n${mark} end\n`
}

/** Whether all of it may stand in a TOML comment, which has no control characters. */
const isPrintable = (text: string) =>
  /^(?:[\t\x20-\x7e\x80-\xff]|\r?\n)*$/.test(text) && isUtf8(Buffer.from(text, "latin1"))

/** The text as comments, readable where it can be. */
const suspend = (text: string): string => {
  if (text === "") return ""
  const { text: lines, undo } = asLines(text)
  const comments = isPrintable(text)
    ? lines.slice(0, -1).split("\n").map((line) => `#| ${line}\n`).join("")
    : Buffer.from(lines, "latin1").toString("base64").replace(/.{1,100}/g, "#= $&\n")
  return `${mark} suspended, \`spegel cleanup\` brings it back\n${comments}${mark} resume${undoList(undo)}\n`
}

const resume = (comments: string): string =>
  comments.startsWith("#= ")
    ? Buffer.from(comments.replaceAll("#= ", ""), "base64").toString("latin1")
    : comments.slice("#| ".length).replaceAll("\n#| ", "\n")

const suspended = new RegExp(
  `^${mark} suspended[^\\n]*\\n((?:#[|=] [^\\n]*\\n)+)${mark} resume${undoPattern}\\n`,
  "gm"
)
const block = new RegExp(`(\\n?)^${mark} begin${undoPattern}\\n(?:(?!${mark})[^\\n]*\\n)*${mark} end\\n`, "gm")

const hasUndo = (list: string | undefined, word: string) => (list ?? "").split(", ").includes(word)

/** The text before we changed it, and what else to undo; none where we did not. */
export const restore = (
  text: string
): Result.Result<Option.Option<{ readonly text: string; readonly undo: Undo }>, HostsTomlUnusable> => {
  if (!text.includes(mark)) return Result.succeed(Option.none())
  let lists = ""
  const pristine = text
    .replace(block, (_, newline: string, list: string | undefined) => {
      lists += `, ${list ?? ""}`
      return hasUndo(list, "newline") ? "" : newline
    })
    .replace(suspended, (_, comments: string, list: string | undefined) => {
      const lines = resume(comments)
      return hasUndo(list, "newline") ? lines.slice(0, -1) : lines
    })
  if (new RegExp(`^${mark} (?:begin|end|suspended|resume)`, "m").test(pristine)) {
    return Result.fail(
      new HostsTomlUnusable({
        reason: `has lines "${mark} ..." that were changed by hand: put them right or remove them`
      })
    )
  }
  const mode = /\bmode ([0-7]{3,4})\b/.exec(lists)?.[1]
  const made = /\b(file|directory)\b/.exec(lists)?.[1]
  return Result.succeed(Option.some({
    text: pristine,
    undo: {
      made: made === "file" || made === "directory" ? Option.some(made) : Option.none(),
      mode: mode === undefined ? Option.none() : Option.some(Number.parseInt(mode, 8))
    }
  }))
}

/** The part of a file from one table's header to the next. */
interface Section {
  readonly text: string
  /** URL of the host that the table is of, or belongs to. */
  readonly host: Option.Option<string>
}

interface Sections {
  /** Everything in front of the first table. */
  readonly root: string
  readonly tables: ReadonlyArray<Section>
  readonly toml: TomlTable
}

const tableOf = (value: unknown): TomlTable =>
  typeof value === "object" && value !== null && !Array.isArray(value) ? value as TomlTable : {}

const capabilitiesKnown = new Set(["pull", "resolve", "push", "referrers"])

/** What containerd takes; anything else makes it ignore the whole file and say so only in its log. */
const isAccepted = ({ host, ...root }: TomlTable): boolean =>
  ["string", "undefined"].includes(typeof root["server"]) &&
  [root, ...Object.values(tableOf(host)).map(tableOf)].every(({ capabilities }) =>
    capabilities === undefined
    || Array.isArray(capabilities) &&
      capabilities.every((name) => typeof name === "string" && capabilitiesKnown.has(name))
  )

/** None where containerd does not take the file. */
const sectionsOf = (text: string): Option.Option<Sections> => {
  const toml = isUtf8(Buffer.from(text, "latin1")) ? parseTable(text) : Option.none()
  if (Option.isNone(toml) || !isAccepted(toml.value)) return Option.none()
  const starts: Array<number> = []
  for (const { index } of text.matchAll(/(?<=^|\n)[ \t]*\[/g)) {
    // A line inside an array or a string can look like a header, but what stands before it is no TOML by itself.
    if (Option.isSome(parseTable(text.slice(starts.at(-1) ?? 0, index)))) starts.push(index)
  }
  const tables = starts.map((start, position) => {
    const section = text.slice(start, starts[position + 1] ?? text.length)
    const header = Option.getOrElse(parseTable(section.split(/\r?\n/, 1)[0] ?? ""), (): TomlTable => ({}))
    return { text: section, host: Option.fromUndefinedOr(Object.keys(tableOf(header["host"]))[0]) }
  })
  return Option.some({ root: text.slice(0, starts[0] ?? text.length), tables, toml: toml.value })
}

const hostOf = (url: string) => URL.parse(url.includes("://") ? url : `https://${url}`)?.host ?? url

/** Upstream that drops packets in an outage: without a timeout each tag waits 30 s for it. */
const upstreamDefaults = { capabilities: ["pull", "resolve"], dial_timeout: "5s" }

/**
 * Hosts behind all others. Measured with containerd 1.6, 1.7 and 2.1: a tag is asked of the hosts with both capabilities,
 * manifests and blobs of all hosts, whatever they are said to be capable of. So with `upstream-first` the mirror stands
 * first, for digests alone, then upstream, then the mirror again in another spelling, for tags in an outage.
 */
const fallback = (
  mirror: Mirror,
  upstream: Option.Option<string>,
  toml: TomlTable
): Result.Result<Array<string>, HostsTomlUnusable> => {
  if (mirror.tagResolution !== "upstream-first") return Result.succeed([])
  const { host: _, server, ...options } = toml
  const url = typeof server === "string" ? Option.some(server) : upstream
  if (Option.isNone(url)) {
    return Result.fail(new HostsTomlUnusable({ reason: "names no upstream to ask first: upstream-first needs one" }))
  }
  const listed = Object.keys(tableOf(toml["host"])).includes(url.value)
  return Result.succeed([
    ...(listed
      ? []
      : [stringify({ host: { [url.value]: { ...upstreamDefaults, ...options } } }).replace("[host]\n", "").trim()]),
    ...mirror.targets.map((target) => table(`${target}/`, ["pull", "resolve"], mirror.authorization))
  ])
}

export interface InstallOptions {
  readonly mirror: Mirror
  readonly upstream: Upstream
  /** Whether hosts that the file names already are asked behind the mirror; else they are suspended. */
  readonly prependExisting: boolean
  /** What `restore` has to tell besides the text. */
  readonly undo: Undo
}

/** The text with the mirror in it. `text` is without our blocks; empty where there is no file. */
export const install = (
  text: string,
  { mirror, prependExisting, undo, upstream }: InstallOptions
): Result.Result<string, HostsTomlUnusable> =>
  Result.gen(function*() {
    const sections = sectionsOf(text)
    const made = Option.isSome(undo.made) ? upstream.options : {}
    const { root, tables, toml }: Sections = Option.getOrElse(sections, () => ({ root: "", tables: [], toml: {} }))
    if (Object.hasOwn(Option.getOrElse(parseTable(root), (): TomlTable => ({})), "host")) {
      return yield* Result.fail(
        new HostsTomlUnusable({ reason: "has hosts that are no [host] tables: write them as tables" })
      )
    }
    const { server } = toml
    const own = new Set([...upstream.hosts, ...(typeof server === "string" ? [hostOf(server)] : [])])
    const isKept = ({ host }: Section) => prependExisting || Option.isNone(host) || own.has(hostOf(host.value))

    const twice = tables.find((section) =>
      isKept(section) && Option.exists(section.host, (host) => mirror.targets.includes(host))
    )
    if (twice !== undefined) {
      return yield* Result.fail(
        new HostsTomlUnusable({
          reason: `has ${Option.getOrThrow(twice.host)} as a host already: remove it there first`
        })
      )
    }

    const capabilities = mirror.tagResolution === "mirror" ? ["pull", "resolve"] : ["pull"]
    const undoFile = [
      ...Option.toArray(undo.made),
      ...Option.toArray(Option.map(undo.mode, (mode) => `mode ${mode.toString(8)}`))
    ]
    let result = addBlock(root, undoFile, [
      ...(server === undefined ? Option.toArray(Option.map(upstream.url, (url) => `server = ${quote(url)}`)) : []),
      ...Object.entries(made).map(([key, value]) => stringify({ [key]: value }).trim()),
      ...mirror.targets.map((target) => table(target, capabilities, mirror.authorization))
    ])
    // What containerd ignores is kept, but must not make it ignore the mirror.
    if (Option.isNone(sections)) result += suspend(text)
    let pending = ""
    for (const section of tables) {
      if (isKept(section)) {
        result += suspend(pending) + section.text
        pending = ""
      } else pending += section.text
    }
    result += suspend(pending)
    const last = yield* fallback(mirror, upstream.url, { ...made, ...toml })
    if (last.length > 0) result = addBlock(result, [], last)
    return Option.isSome(sectionsOf(result))
      ? result
      : yield* Result.fail(new HostsTomlUnusable({ reason: "would be no TOML any more with the mirror in it" }))
  })
