/**
 * Flags of the mirror that runs as the first process of this container. `kubectl exec` starts `spegel doctor` beside it, which is to
 * examine what that mirror has, without being told all of it again.
 */
import { readFileSync } from "node:fs"

/** The command line of the first process; empty if it cannot be read. */
const firstProcess = (): ReadonlyArray<string> => {
  try {
    return readFileSync("/proc/1/cmdline", "utf8").split("\0")
  } catch {
    return []
  }
}

const nameOf = (arg: string): string | undefined => /^--?([a-z][a-z-]+)(?:=|$)/.exec(arg)?.[1]

/** The arguments by their flags: a flag with what follows it up to the next. */
const byFlag = (args: ReadonlyArray<string>): ReadonlyArray<readonly [string, ReadonlyArray<string>]> => {
  const groups: Array<[string, Array<string>]> = []
  for (const arg of args) {
    const name = nameOf(arg)
    if (name !== undefined) groups.push([name, [arg]])
    else groups.at(-1)?.[1].push(arg)
  }
  return groups
}

/** Another process, and the program that both run. */
export interface Running {
  /** The path of the script that Node runs, as both command lines have it. */
  readonly script: string
  readonly commandLine: ReadonlyArray<string>
}

/**
 * Adds flags of a running mirror to the arguments of `spegel doctor`, those of them that are in `flags` and are not given. Other
 * arguments stay as they are.
 */
export const inherit = (
  args: ReadonlyArray<string>,
  flags: ReadonlySet<string>,
  { commandLine, script }: Running = { commandLine: firstProcess(), script: process.argv[1] ?? "" }
): ReadonlyArray<string> => {
  const at = args.indexOf("doctor")
  const command = commandLine.indexOf(script) + 1
  if (at === -1 || command === 0 || commandLine[command] !== "registry") return args
  const given = new Set(args.map(nameOf))
  const inherited = byFlag(commandLine.slice(command + 1).filter((arg) => arg !== ""))
    .flatMap(([name, group]) => flags.has(name) && !given.has(name) ? group : [])
  return [...args.slice(0, at + 1), ...inherited, ...args.slice(at + 1)]
}
