/** Commands, run to their end. */
import { Data, Effect } from "effect"
import { spawn } from "node:child_process"

/** A command ended with another code than 0, or not in time. */
export class CommandFailed extends Data.TaggedError("CommandFailed")<{
  readonly command: string
  readonly output: string
}> {
  override get message() {
    return `${this.command}: ${this.output.trim().split("\n").slice(-12).join("\n")}`
  }
}

export interface CommandOptions {
  /** What it reads from its standard input. */
  readonly input?: string
  readonly cwd?: string
  readonly environment?: Readonly<Record<string, string>>
  /** Whether to give what it printed on its standard error too, behind the rest. */
  readonly withErrors?: boolean
}

/** Runs a command and gives what it printed. Interruption kills it. */
export const run = (
  command: string,
  args: ReadonlyArray<string>,
  { cwd, environment, input, withErrors = false }: CommandOptions = {}
): Effect.Effect<string, CommandFailed> =>
  Effect.callback((resume) => {
    const child = spawn(command, args, {
      cwd,
      env: { ...process.env, ...environment },
      stdio: [input === undefined ? "ignore" : "pipe", "pipe", "pipe"]
    })
    let stdout = ""
    let stderr = ""
    child.stdout?.setEncoding("utf8").on("data", (text: string) => stdout += text)
    child.stderr?.setEncoding("utf8").on("data", (text: string) => stderr += text)
    // A program that has ended reads nothing more.
    child.stdin?.on("error", () => undefined)
    child.stdin?.end(input)
    const fail = (output: string) =>
      resume(Effect.fail(new CommandFailed({ command: [command, ...args].join(" "), output })))
    child.once("error", ({ message }) => fail(message))
    child.once("close", (code) =>
      code === 0 ? resume(Effect.succeed(withErrors ? stdout + stderr : stdout)) : fail(`${stdout}${stderr}`))
    return Effect.sync(() =>
      child.kill("SIGKILL")
    )
  })
