/** The tokens of TOML, read as tolerantly as `TomlReader` has to. Text has one character per byte (`latin1`). */

/** No library accepts the text; the message says where it goes wrong. */
export class Refused extends Error {}

const patterns = {
  space: /[ \t]*/y,
  blank: /(?:[ \t\r\n]|#[^\n]*)*/y,
  lineEnd: /[ \t]*(?:#[^\n]*)?(?:\r\n?|\n|$)/y,
  bareKey: /[\w\x80-\xff-]+/y,
  scalar: /[+-]?(?:inf|nan|\d[\w.:+-]*)(?: \d[\w.:+-]*)?/y,
  boolean: /true|false/y,
  /** go-toml 1 accepts this one value on the line after its key. */
  emptyArrayBelow: /[\r\n](?:[ \t\r\n]|#[^\n]*)*\[\]/y,
  multilineBasic: /"""(?:\r?\n)?((?:\\[^]|[^\\])*?"{0,2})"""(?!")/y,
  multilineLiteral: /'''(?:\r?\n)?([^]*?'{0,2})'''(?!')/y,
  basic: /"((?:\\[^]|[^"\\\n\r])*)"/y,
  literal: /'([^']*)'/y
}

/** Numbers and dates that both libraries accept. */
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

const marks = ["\xef\xbb\xbf", "\xfe\xff", "\xff\xfe"]

/** A text with a position. */
export class TomlScanner {
  readonly text: string
  /** Position of the next character. */
  at: number
  /** Whether one of the libraries may refuse the text, or read it differently. */
  isOdd: boolean

  constructor(text: string) {
    this.text = text
    this.at = marks.find((mark) => text.startsWith(mark))?.length ?? 0
    this.isOdd = this.at > 0
  }

  /** Fails with `Refused`. */
  refuse(reason: string): never {
    throw new Refused(`line ${this.text.slice(0, this.at).split("\n").length}: ${reason}`)
  }

  /** Takes what the pattern matches here, or its group; undefined if it does not match. */
  take(name: keyof typeof patterns): string | undefined {
    const pattern = patterns[name]
    pattern.lastIndex = this.at
    const match = pattern.exec(this.text)
    if (match === null) return undefined
    this.at = pattern.lastIndex
    return match[1] ?? match[0]
  }

  /** Passes these characters; false if others stand here. */
  skip(character: string): boolean {
    if (!this.text.startsWith(character, this.at)) return false
    this.at += character.length
    return true
  }

  /** Passes a number or a date; false if there is none here. */
  scalar(): boolean {
    const scalar = this.take("scalar")
    if (scalar !== undefined && !common.test(scalar)) this.isOdd = true
    return scalar !== undefined
  }

  /** Takes a string; undefined if there is none here. */
  string(): string | undefined {
    const start = this.at
    if (this.text.startsWith(`"""`, start) || this.text.startsWith("'''", start)) {
      const basic = this.take("multilineBasic")
      const string = basic === undefined ? this.take("multilineLiteral") : this.unescape(basic)
      // go-toml 1 ends a string at the first three quotes, and does not check its characters.
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

  /** Resolves the escapes of a basic string. */
  unescape(text: string): string {
    if (/\\(?:[^btnfr"\\u]|u[dD])|[^\t\r\n\x20-\x7e\x80-\xff]/.test(text)) this.isOdd = true
    return text.replace(/\\(?:u([\da-fA-F]{4})|U([\da-fA-F]{8})|[ \t\r\n]+|([^]))/g, (_, short, long, one) => {
      const code = (short ?? long) as string | undefined
      if (code !== undefined) {
        const point = Number.parseInt(code, 16)
        return Buffer.from(point > 0x10_ff_ff ? "\ufffd" : String.fromCodePoint(point)).toString("latin1")
      }
      const escaped = one as string | undefined
      return escaped === undefined ? "" : escapes[escaped] ?? this.refuse(`\\${escaped} is not an escape`)
    })
  }
}
