/**
 * A tolerant reader of TOML. containerd reads `hosts.toml` with go-toml 1 (containerd 1.x), which is far less strict
 * than the specification, or go-toml 2 (containerd 2.x). This reader accepts what either accepts; what it refuses, both
 * refuse. `isOdd` says that one of them may refuse the text, or read it differently.
 *
 * Text has one character per byte (`latin1`).
 */
import { Result } from "effect"
import { Refused, TomlScanner } from "./TomlScanner.ts"

export type Value = string | boolean | Other | Table | ReadonlyArray<Value>

/** A number or a date. No option of containerd is one. */
export class Other {
  readonly _tag = "Other"
}

export class Table {
  readonly entries = new Map<string, Value>()
  /** Its place among the tables, by which go-toml 1 sorts hosts; 0 for an inline table. */
  readonly position: number
  constructor(position: number) {
    this.position = position
  }
}

export interface Header {
  readonly path: ReadonlyArray<string>
  /** Position of its bracket in the text. */
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

const maxDepth = 100

/** Reads one text; fails with `Refused`. */
class Reader extends TomlScanner {
  readonly root = new Table(0)
  readonly headers: Array<Header> = []
  private readonly isWanted: (path: ReadonlyArray<string>) => boolean
  private tables = 0
  private path: ReadonlyArray<string> = []

  constructor(text: string, isWanted: (path: ReadonlyArray<string>) => boolean) {
    super(text)
    this.isWanted = isWanted
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

  /** Refuses what is defined twice, unless go-toml 2 ignores the table because nobody wants it. */
  private twice(what: string) {
    if (this.isWanted(this.path)) this.refuse(`${what} is defined twice`)
    this.isOdd = true
  }

  /** Reads a header, after its first bracket. */
  private header(defined: Set<string>): Table {
    const at = this.at - 1
    const isArray = this.skip("[")
    const start = this.at
    const path = this.key()
    const written = this.text.slice(start, this.at)
    if (/[[\]]/.test(written)) this.isOdd = true
    if (!this.skip(isArray ? "]]" : "]")) this.refuse("a table's name does not end")
    this.tables++
    this.path = path
    this.headers.push({ path, at, isArray })
    if (isArray) {
      // Tables of the previous element may be defined again.
      defined.clear()
      const parent = this.descend(this.root, path.slice(0, -1))
      const name = path.at(-1) ?? ""
      const before = parent.entries.get(name) ?? []
      if (!Array.isArray(before)) this.refuse(`${name} is not an array of tables`)
      const table = new Table(this.tables)
      parent.entries.set(name, [...before, table])
      return table
    }
    if (defined.has(written)) this.twice(`the table ${written}`)
    defined.add(written)
    return this.descend(this.root, path)
  }

  /** The table at the path. Missing tables are made. */
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
      // go-toml 1 needs no dot after a quote.
      isJoined = hasQuotes && /["'\w]/.test(this.text[this.at] ?? "")
      if (isJoined) this.isOdd = true
    } while (isJoined || this.skip("."))
    return path
  }

  private assign(table: Table, isInline = false, depth = 0) {
    // Dotted keys make a table, whose place is theirs.
    this.tables++
    const path = this.key()
    if (!this.skip("=")) this.refuse("= is expected after a key")
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
    if (!this.scalar()) this.refuse("a value is expected")
    return new Other()
  }

  private array(depth: number): ReadonlyArray<Value> {
    const values: Array<Value> = []
    for (this.take("blank"); !this.skip("]"); this.take("blank")) {
      values.push(this.value(depth))
      this.take("blank")
      if (!this.skip(",") && !this.text.startsWith("]", this.at)) this.refuse("an array does not end")
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
      if (!this.skip("}")) this.refuse("an inline table does not end")
    }
    if (this.text.slice(start, this.at).includes("\n")) this.isOdd = true
    return table
  }
}

/**
 * Reads a text, or fails with the reason why neither library accepts it. `isWanted`: whether containerd uses a table.
 */
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
