/** Commands that are run to their end. */
import { Data, Effect } from "effect"
import { execFile } from "node:child_process"

/** A command could not be started, ended with another code than 0 or by a signal, or printed more than is taken. */
export class CommandFailed extends Data.TaggedError("CommandFailed")<{
  /** The command with its arguments. */
  readonly command: string
  /** Everything it printed, or the system's error where it printed nothing. */
  readonly output: string
}> {
  override get message() {
    return `${this.command}: ${this.output.trim().split("\n").slice(-maxLines).join("\n")}`
  }
}

/** Lines of the output that the message quotes; the last ones say what went wrong. */
const maxLines = 12

export interface CommandOptions {
  /** What the command reads from its standard input. Default: nothing. */
  readonly input?: string
  readonly cwd?: string
  /** Variables over those of this process. */
  readonly environment?: Readonly<Record<string, string>>
  /** Also gives what the command wrote to its standard error, behind its standard output. */
  readonly withErrors?: boolean
}

const maxOutputBytes = 64 * 1024 * 1024

/** Runs a command and gives its standard output. Interruption kills it. */
export const run = (
  command: string,
  args: ReadonlyArray<string>,
  { cwd, environment, input, withErrors = false }: CommandOptions = {}
): Effect.Effect<string, CommandFailed> =>
  Effect.callback((resume) => {
    const options = { cwd, env: { ...process.env, ...environment }, maxBuffer: maxOutputBytes }
    const child = execFile(command, args, options, (error, stdout, stderr) => {
      const output = `${stdout}${stderr}`
      resume(
        error === null
          ? Effect.succeed(withErrors ? output : stdout)
          : Effect.fail(new CommandFailed({ command: [command, ...args].join(" "), output: output || error.message }))
      )
    })
    // A program that has ended reads no more.
    child.stdin?.on("error", () => undefined).end(input)
    return Effect.sync(() => child.kill("SIGKILL"))
  })
