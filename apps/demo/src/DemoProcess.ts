/** The `spegel` processes of the demo: each is killed when the scope that started it closes. Nothing that a graceful stop would finish is needed. */
import { Data, Effect, Fiber, Schedule, Stream } from "effect"
import { ChildProcess } from "effect/process"
import { fileURLToPath } from "node:url"

/** A process could not be started, ended by itself, or was not ready in time. */
export class ProcessFailed extends Data.TaggedError("ProcessFailed")<{
  readonly name: string
  readonly reason: string
  /** The last line that it wrote. */
  readonly output: string
}> {
  override get message() {
    return `${this.name} ${this.reason}: ${this.output}`
  }
}

export interface ProcessOptions {
  readonly name: string
  /** The command line of the bundled `spegel`. */
  readonly args: ReadonlyArray<string>
  /** The URL of its registry, which says when it is ready. */
  readonly url: string
}

/** Characters of the output that are kept. */
const maxOutput = 4000

/** The message of a log line. What Node itself prints when it crashes is not JSON. */
const messageOf = (line: string): string => {
  try {
    return (JSON.parse(line) as { readonly msg?: string }).msg ?? line
  } catch {
    return line
  }
}

const bundle = fileURLToPath(new URL("../../spegel/bundle/main.js", import.meta.url))

const isReady = (url: string): Effect.Effect<boolean> =>
  Effect.promise((signal) => fetch(`${url}/readyz`, { signal }).then((response) => response.ok, () => false))

/**
 * Starts a `spegel` in a group of its own, so that Ctrl-C reaches only the demo, and waits until the process is ready. The scope kills
 * the group.
 */
export const start = Effect.fn("DemoProcess.start")(function*({ args, name, url }: ProcessOptions) {
  let output = ""
  const failed = (reason: string) =>
    new ProcessFailed({ name, reason, output: messageOf(output.trim().split("\n").at(-1) ?? "") })
  const child = yield* ChildProcess.make(process.execPath, [bundle, ...args], {
    stdin: "ignore",
    stdout: "ignore",
    killSignal: "SIGKILL"
  }).pipe(Effect.mapError(({ message }) => new ProcessFailed({ name, reason: "does not start", output: message })))
  const reading = yield* Effect.forkScoped(
    Stream.runForEach(
      Stream.decodeText(child.stderr),
      (text) => Effect.sync(() => output = (output + text).slice(-maxOutput))
    )
  )
  const ended = child.exitCode.pipe(
    Effect.match({ onSuccess: (code) => `ended with code ${code}`, onFailure: () => "was killed" }),
    Effect.tap(Fiber.await(reading)),
    Effect.flatMap((reason) => Effect.fail(failed(reason)))
  )
  yield* isReady(url).pipe(
    Effect.repeat({ schedule: Schedule.spaced("50 millis"), until: (ready) => ready }),
    Effect.timeoutOrElse({ duration: "30 seconds", orElse: () => Effect.fail(failed("was not ready in 30 seconds")) }),
    Effect.raceFirst(ended)
  )
  return { kill: Effect.ignore(child.kill({ killSignal: "SIGKILL" })) }
})
