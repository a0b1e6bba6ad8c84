/** Processes of the demo: nodes of `spegel` and registries, stopped with the scope. */
import { Data, Effect, Schedule } from "effect"
import { spawn } from "node:child_process"
import { fileURLToPath } from "node:url"

/** A process ended by itself, or was not ready in time; `output` is the end of what it wrote. */
export class ProcessFailed extends Data.TaggedError("ProcessFailed")<{
  readonly name: string
  readonly reason: string
  readonly output: string
}> {
  override get message() {
    return `${this.name} ${this.reason}: ${this.output}`
  }
}

export interface ProcessOptions {
  readonly name: string
  readonly command: string
  readonly args: ReadonlyArray<string>
  /** Tells whether the process is ready; asked again until it is. */
  readonly ready: Effect.Effect<boolean>
}

const maxOutput = 4000

/** What a line of a log says; lines of other programs are not JSON. */
const messageOf = (line: string): string => {
  try {
    return (JSON.parse(line) as { readonly msg?: string }).msg ?? line
  } catch {
    return line
  }
}

const bundle = fileURLToPath(new URL("../../spegel/bundle/main.js", import.meta.url))

/** The command line of the bundled `spegel`. */
export const spegel = (args: ReadonlyArray<string>) => ({ command: process.execPath, args: [bundle, ...args] })

/** Starts a process and waits until it is ready. It is asked to stop with SIGTERM, and killed after five seconds. */
export const start = Effect.fn("DemoProcess.start")(function*({ args, command, name, ready }: ProcessOptions) {
  let output = ""
  const child = yield* Effect.acquireRelease(
    Effect.sync(() => {
      // A group of its own: Ctrl-C is for the demo, which stops its processes in order.
      const child = spawn(command, args, { detached: true, stdio: ["ignore", "ignore", "pipe"] })
      child.stderr.on("data", (bytes: Buffer) => {
        output = (output + bytes.toString()).slice(-maxOutput)
      })
      child.on("error", (error) => {
        output += error.message
      })
      return child
    }),
    (child) => {
      const ended = Effect.callback<void>((resume) => {
        if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return resume(Effect.void)
        child.once("exit", () => resume(Effect.void))
      })
      return Effect.sync(() => child.kill("SIGTERM")).pipe(
        Effect.andThen(ended),
        Effect.timeoutOrElse({
          duration: "5 seconds",
          // With all that it has started itself.
          orElse: () => Effect.andThen(Effect.sync(() => process.kill(-(child.pid ?? 0), "SIGKILL")), ended)
        })
      )
    }
  )
  const failed = (reason: string) =>
    new ProcessFailed({ name, reason, output: messageOf(output.trim().split("\n").at(-1) ?? "") })
  const alive = Effect.suspend(() =>
    child.exitCode === null ? Effect.void : Effect.fail(failed(`ended with code ${child.exitCode}`))
  )
  yield* Effect.andThen(alive, ready).pipe(
    Effect.repeat({ schedule: Schedule.spaced("50 millis"), until: (ready) => ready }),
    Effect.timeoutOrElse({ duration: "30 seconds", orElse: () => Effect.fail(failed("was not ready in 30 seconds")) })
  )
})
