/**
 * The marks in a `hosts.toml`: we write marked blocks, and turn what is to have no effect into comments. So the file
 * itself records what it was before, to the byte, and one atomic replacement configures or restores a registry.
 *
 * Text has one character per byte (`latin1`), because invalid UTF-8 has to be restored too.
 */
import { Data, Option, Result } from "effect"
import { isUtf8 } from "node:buffer"

/** The facts, besides the text, that are needed to restore the file system. */
export interface Undo {
  /** Missing before, and made by us. */
  readonly made: Option.Option<"file" | "directory">
  /** Permissions that the file had, if they were changed. */
  readonly mode: Option.Option<number>
}

/** The file cannot be changed so that containerd does what is wanted: a person has to put it right. */
export class HostsTomlUnusable extends Data.TaggedError("HostsTomlUnusable")<{ readonly reason: string }> {
  override get message() {
    return this.reason
  }
}

const mark = "# spegel-ts:"
const undoPattern = "(?:; undo: ([a-z0-9, ]+))?"

/** Text that ends a line, and the change to undo if it did not. */
const asLines = (text: string) =>
  text === "" || text.endsWith("\n") ? { text, undo: [] } : { text: `${text}\n`, undo: ["newline"] }

const undoList = (undo: ReadonlyArray<string>) => undo.length === 0 ? "" : `; undo: ${undo.join(", ")}`

/** Appends a block to `before`. */
export const addBlock = (before: string, undo: ReadonlyArray<string>, lines: ReadonlyArray<string>): string => {
  const ended = asLines(before)
  return `${ended.text}${mark} begin${undoList([...ended.undo, ...undo])}\n`
    + `# Written by \`spegel configuration\`, removed by \`spegel cleanup\`; changes in this block are lost.\n`
    + `${lines.join("\n")}\n${mark} end\n`
}

/** Whether all of it may stand in a TOML comment, which has no control characters. */
const isPrintable = (text: string) =>
  /^(?:[\t\x20-\x7e\x80-\xff]|\r?\n)*$/.test(text) && isUtf8(Buffer.from(text, "latin1"))

/** The text as comments, readable if it can be. */
export const suspend = (text: string): string => {
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

/** The text before we changed it, and what else to undo; none if we did not. */
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
