/**
 * The text of `--help`. Effect's own formatter has one line for each flag, however long, and no groups of flags; this one wraps
 * to a width and puts flags below the headings of their groups.
 */
import { Option } from "effect"
import type { HelpDoc } from "effect/cli"

export interface Options {
  /** The width of the terminal. */
  readonly columns: number
  /** Whether headings are bold, by an escape sequence. */
  readonly color: boolean
  /** The group of a flag, by its name without the dashes; undefined for a flag that is in none. */
  readonly groupOf: (flag: string) => string | undefined
}

interface Section {
  readonly heading: string
  readonly lines: ReadonlyArray<string>
}

/** No narrower: the longest names of flags would not fit. */
const leastColumns = 40

/** A width that the user chose in COLUMNS, else the terminal's, else 80. */
export const columnsOf = (variable: string | undefined, terminal: number | undefined): number => {
  const chosen = Number(/^\d{1,4}$/.test(variable ?? "") ? variable : 0)
  return Math.max(leastColumns, chosen > 0 ? chosen : terminal ?? 80)
}

/** The words of a text in lines of that width, each behind the indentation. A word that is longer has a line of its own. */
export const wrap = (text: string, columns: number, indentation: string): ReadonlyArray<string> => {
  const lines: Array<string> = []
  let line = indentation
  for (const word of text.split(/\s+/).filter((word) => word !== "")) {
    const longer = line === indentation ? line + word : `${line} ${word}`
    if (longer.length > columns && line !== indentation) {
      lines.push(line)
      line = indentation + word
    } else line = longer
  }
  return [...lines, line]
}

/** What a name means, on the lines below it. */
const entry = (name: string, meaning: string, columns: number) => [`  ${name}`, ...wrap(meaning, columns, "      ")]

const flagEntry = ({ aliases, description, name, type }: HelpDoc.FlagDoc, columns: number) => {
  const names = [`--${name}`, ...aliases].join(", ")
  return entry(type === "boolean" ? names : `${names} ${type}`, Option.getOrElse(description, () => ""), columns)
}

const flagSections = (doc: HelpDoc.HelpDoc, { columns, groupOf }: Options): ReadonlyArray<Section> => {
  const own = doc.flags.map((flag) => [groupOf(flag.name) ?? "Flags", flag] as const)
  const others = [...doc.inheritedFlags ?? [], ...doc.globalFlags ?? []].map((flag) => ["Every command", flag] as const)
  return [...Map.groupBy([...own, ...others], ([heading]) => heading)].map(([heading, flags]) => ({
    heading,
    lines: flags.flatMap(([, flag]) => flagEntry(flag, columns))
  }))
}

/** Names and meanings side by side, for what has short names. */
const sideBySide = (rows: ReadonlyArray<readonly [name: string, meaning: string]>, columns: number) => {
  const width = Math.max(...rows.map(([name]) => name.length)) + 4
  return rows.flatMap(([name, meaning]) => {
    const [first = "", ...rest] = wrap(meaning, columns, " ".repeat(width))
    return [`  ${name.padEnd(width - 2)}${first.slice(width)}`, ...rest]
  })
}

const commandLines = (doc: HelpDoc.HelpDoc, columns: number) => {
  const commands = (doc.subcommands ?? []).flatMap(({ commands }) => commands)
  if (commands.length === 0) return []
  return sideBySide(commands.map(({ description, name }) => [name, description] as const), columns)
}

/** A command, whose lines a shell joins again. */
const commandLine = (command: string, columns: number) =>
  wrap(command, columns - 4, "  ").map((line, index, { length }) =>
    `${index === 0 ? line : `  ${line}`}${index === length - 1 ? "" : " \\"}`
  )

const exampleLines = (doc: HelpDoc.HelpDoc, columns: number) => {
  const examples = (doc.examples ?? []).map(({ command, description }) =>
    (description === undefined ? [] : wrap(description, columns, "  # ")).concat(commandLine(command, columns))
  )
  return examples.flatMap((lines, index) => index === 0 ? lines : [""].concat(lines))
}

/** The help of a command. */
export const render = (doc: HelpDoc.HelpDoc, options: Options): string => {
  const { color, columns } = options
  const args = (doc.args ?? []).flatMap(({ description, name }) =>
    entry(name, Option.getOrElse(description, () => ""), columns)
  )
  const sections: ReadonlyArray<Section> = [
    { heading: "Usage", lines: wrap(doc.usage, columns, "  ") },
    { heading: "Subcommands", lines: commandLines(doc, columns) },
    { heading: "Examples", lines: exampleLines(doc, columns) },
    { heading: "Arguments", lines: args },
    ...flagSections(doc, options)
  ]
  const title = (heading: string) => color ? `\u001b[1m${heading.toUpperCase()}\u001b[0m` : heading.toUpperCase()
  return [
    wrap(doc.description, columns, "").join("\n"),
    ...sections.filter(({ lines }) => lines.length > 0).map(({ heading, lines }) =>
      [title(heading), ...lines].join("\n")
    )
  ].join("\n\n")
}
