/**
 * A tolerant reader of TOML. It takes whatever one of the two libraries takes that containerd reads `hosts.toml` with:
 * go-toml 1 in containerd 1.x, which knows little of the specification's strictness, and go-toml 2 in containerd 2.x.
 * What it refuses, both refuse. `isOdd` says that one of them may refuse what it took, or read it differently.
 *
 * Text here has one character a byte (`latin1`).
 */
import { Result } from "effect"

export type Value = string | boolean | Other | Table | ReadonlyArray<Value>

/** A number or a date. No option of containerd is one. */
export class Other {
  readonly _tag = "Other"
}

export class Table {
  readonly entries = new Map<string, Value>()
  /** Where it was made first, counted in tables; 0 for an inline table. go-toml 1 sorts hosts by it. */
  readonly position: number
  constructor(position: number) {
    this.position = position
  }
}

export interface Header {
  readonly path: ReadonlyArray<string>
  /** Where its bracket stands in the text. */
  readonly at: number
  /** `[[a.b]]`, one of an array of tables. */
  readonly isArray: boolean
}

export interface Document {
  readonly root: Table
  /** Headers of tables, in their order. */
  readonly headers: ReadonlyArray<Header>
  readonly isOdd: boolean
}

class Refused extends Error {}

const patterns = {
  space: /[ \t]*/y,
  blank: /(?:[ \t\r\n]|#[^\n]*)*/y,
  lineEnd: /[ \t]*(?:#[^\n]*)?(?:\r\n?|\n|$)/y,
  bareKey: /[\w\x80-\xff-]+/y,
  scalar: /[+-]?(?:inf|nan|\d[\w.:+-]*)(?: \d[\w.:+-]*)?/y,
  boolean: /true|false/y,
  /** go-toml 1 takes this one value on a line of its own. */
  emptyArrayBelow: /[\r\n](?:[ \t\r\n]|#[^\n]*)*\[\]/y,
  multilineBasic: /"""(?:\r?\n)?((?:\\[^]|[^\\])*?"{0,2})"""(?!")/y,
  multilineLiteral: /'''(?:\r?\n)?([^]*?'{0,2})'''(?!')/y,
  basic: /"((?:\\[^]|[^"\\\n\r])*)"/y,
  literal: /'([^']*)'/y
}

/** Numbers and dates that both libraries take. */
const common =
  /^(?:[+-]?(?:inf|nan|\d[\d_]*(?:\.\d+)?(?:[eE][+-]?\d+)?)|0(?:x[\da-fA-F_]+|o[0-7_]+|b[01_]+)|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d))$/

const escapes: Readonly<Record<string, string>> = {
  b: "\b",
  t: "\t",
  n: "\n",
  f: "\f",
  r: "\r",
  e: "\x1b",
  "\"": "\"",
  "\\": "\\",
  "/": "/"
}

const maxDepth = 100
const marks = ["\xef\xbb\xbf", "\xfe\xff", "\xff\xfe"]

/** Reads one text; fails with `Refused`. */
class Reader {
  readonly root = new Table(0)
  readonly headers: Array<Header> = []
  isOdd = false
  private readonly text: string
  private readonly isWanted: (path: ReadonlyArray<string>) => boolean
  private at: number
  private tables = 0
  private path: ReadonlyArray<string> = []

  constructor(text: string, isWanted: (path: ReadonlyArray<string>) => boolean) {
    this.text = text
    this.isWanted = isWanted
    this.at = marks.find((mark) => text.startsWith(mark))?.length ?? 0
    this.isOdd = this.at > 0
  }

  document() {
    const defined = new Set<string>()
    let current = this.root
    for (this.take("blank"); this.at < this.text.length; this.take("blank")) {
      if (this.skip("[")) current = this.header(defined)
      else {
        this.assign(current)
        if (this.take("lineEnd") === undefined) this.refuse("more than one value on a line")
      }
    }
  }

  private refuse(reason: string): never {
    throw new Refused(`line ${this.text.slice(0, this.at).split("\n").length}: ${reason}`)
  }

  /** go-toml 2 does not look at tables that nobody wants. */
  private twice(what: string) {
    if (this.isWanted(this.path)) this.refuse(`${what} stands twice`)
    this.isOdd = true
  }

  /** What a pattern matches here, or its group. */
  private take(name: keyof typeof patterns): string | undefined {
    const pattern = patterns[name]
    pattern.lastIndex = this.at
    const match = pattern.exec(this.text)
    if (match === null) return undefined
    this.at = pattern.lastIndex
    return match[1] ?? match[0]
  }

  private skip(character: string): boolean {
    if (!this.text.startsWith(character, this.at)) return false
    this.at += character.length
    return true
  }

  /** Behind the bracket. */
  private header(defined: Set<string>): Table {
    const at = this.at - 1
    const isArray = this.skip("[")
    const start = this.at
    const path = this.key()
    const written = this.text.slice(start, this.at)
    if (/[[\]]/.test(written)) this.isOdd = true
    if (!this.skip(isArray ? "]]" : "]")) this.refuse("a table's name without an end")
    this.tables++
    this.path = path
    this.headers.push({ path, at, isArray })
    if (isArray) {
      // Tables of the element before may stand again.
      defined.clear()
      const parent = this.descend(this.root, path.slice(0, -1))
      const name = path.at(-1) ?? ""
      const before = parent.entries.get(name) ?? []
      if (!Array.isArray(before)) this.refuse(`${name} is no array of tables`)
      const table = new Table(this.tables)
      parent.entries.set(name, [...before, table])
      return table
    }
    if (defined.has(written)) this.twice(`the table ${written}`)
    defined.add(written)
    return this.descend(this.root, path)
  }

  /** The table at the path; makes those that are not there. */
  private descend(from: Table, path: ReadonlyArray<string>, position = this.tables): Table {
    let table = from
    for (const name of path) {
      const found = table.entries.get(name)
      const next = Array.isArray(found) ? found.at(-1) as Value : found ?? new Table(position)
      if (!(next instanceof Table)) this.refuse(`${name} is a value and a table`)
      if (found === undefined) table.entries.set(name, next)
      table = next
    }
    return table
  }

  private key(): ReadonlyArray<string> {
    const path: Array<string> = []
    let isJoined = false
    do {
      this.take("space")
      const quoted = this.take("basic")
      const part = quoted ?? this.take("literal") ?? this.take("bareKey")
      if (part === undefined) return this.refuse("a key is expected")
      if (/[\\"'\r\n]|[\x80-\xff]/.test(part)) this.isOdd = true
      path.push(quoted === undefined ? part : this.unescape(quoted))
      const hasQuotes = `"'`.includes(this.text[this.at - 1] ?? "")
      this.take("space")
      // go-toml 1 needs no dot behind a quote.
      isJoined = hasQuotes && /["'\w]/.test(this.text[this.at] ?? "")
      if (isJoined) this.isOdd = true
    } while (isJoined || this.skip("."))
    return path
  }

  private assign(table: Table, isInline = false, depth = 0) {
    // A table that dotted keys make has its place where they stand.
    this.tables++
    const path = this.key()
    if (!this.skip("=")) this.refuse("= is expected behind a key")
    this.take("space")
    const value = this.value(depth)
    const parent = this.descend(table, path.slice(0, -1), isInline ? 0 : this.tables)
    const name = path.at(-1) ?? ""
    if (parent.entries.has(name)) {
      if (isInline) this.isOdd = true
      else this.twice(name)
    }
    parent.entries.set(name, value)
  }

  private value(depth: number): Value {
    if (depth > maxDepth) this.refuse("too deep")
    const string = this.string()
    if (string !== undefined) return string
    if (this.take("emptyArrayBelow") !== undefined) {
      this.isOdd = true
      return []
    }
    if (this.skip("[")) return this.array(depth + 1)
    if (this.skip("{")) return this.inline(depth + 1)
    const boolean = this.take("boolean")
    if (boolean !== undefined) return boolean === "true"
    const scalar = this.take("scalar")
    if (scalar === undefined) return this.refuse("no value")
    if (!common.test(scalar)) this.isOdd = true
    return new Other()
  }

  private string(): string | undefined {
    const start = this.at
    if (this.text.startsWith(`"""`, start) || this.text.startsWith("'''", start)) {
      const basic = this.take("multilineBasic")
      const string = basic === undefined ? this.take("multilineLiteral") : this.unescape(basic)
      // go-toml 1 ends at the first three quotes, and does not care for the rest of the specification.
      if (/(["'])\1{3}$/.test(this.text.slice(start, this.at)) || /[^\t\r\n\x20-\x7e\x80-\xff]/.test(string ?? "")) {
        this.isOdd = true
      }
      return string
    }
    const basic = this.take("basic")
    if (basic !== undefined) return this.unescape(basic)
    const literal = this.take("literal")
    if (literal !== undefined && /[^\t\x20-\x7e\x80-\xff]/.test(literal)) this.isOdd = true
    return literal
  }

  private unescape(text: string): string {
    if (/\\(?:[^btnfr"\\u]|u[dD])|[^\t\r\n\x20-\x7e\x80-\xff]/.test(text)) this.isOdd = true
    return text.replace(/\\(?:u([\da-fA-F]{4})|U([\da-fA-F]{8})|[ \t\r\n]+|([^]))/g, (_, short, long, one) => {
      const code = (short ?? long) as string | undefined
      if (code !== undefined) {
        const point = Number.parseInt(code, 16)
        return Buffer.from(point > 0x10_ff_ff ? "\ufffd" : String.fromCodePoint(point)).toString("latin1")
      }
      const escaped = one as string | undefined
      return escaped === undefined ? "" : escapes[escaped] ?? this.refuse(`\\${escaped} is no escape`)
    })
  }

  private array(depth: number): ReadonlyArray<Value> {
    const values: Array<Value> = []
    for (this.take("blank"); !this.skip("]"); this.take("blank")) {
      values.push(this.value(depth))
      this.take("blank")
      if (!this.skip(",") && !this.text.startsWith("]", this.at)) this.refuse("an array without an end")
    }
    return values
  }

  private inline(depth: number): Table {
    const table = new Table(0)
    const start = this.at
    this.take("blank")
    if (!this.skip("}")) {
      do {
        this.take("blank")
        this.assign(table, true, depth)
        this.take("blank")
      } while (this.skip(","))
      if (!this.skip("}")) this.refuse("an inline table without an end")
    }
    if (this.text.slice(start, this.at).includes("\n")) this.isOdd = true
    return table
  }
}

/** Fails with the reason why nobody takes it. `isWanted` tells whether containerd wants what is in a table. */
export const read = (
  text: string,
  isWanted: (path: ReadonlyArray<string>) => boolean
): Result.Result<Document, string> =>
  Result.try({
    try: () => {
      const reader = new Reader(text, isWanted)
      reader.document()
      return { root: reader.root, headers: reader.headers, isOdd: reader.isOdd }
    },
    catch: (cause) => {
      if (cause instanceof Refused) return cause.message
      throw cause
    }
  })
