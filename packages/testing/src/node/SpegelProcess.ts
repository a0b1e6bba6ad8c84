/** The `spegel` command as a child process. It runs the bundle, which `npm run bundle` or the test's set-up has made. */
import { Effect, Schedule } from "effect"
import { fileURLToPath } from "node:url"
import * as Subprocess from "../process/Subprocess.ts"

const main = fileURLToPath(new URL("../../../../apps/spegel/bundle/main.js", import.meta.url))

/** A process that has ended; `code` is null if a signal ended it. */
export interface Finished {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

/** Starts `spegel` with `args`; everything else is as in `startNode`. */
export const start = (
  args: ReadonlyArray<string>,
  environment?: Readonly<Record<string, string>>,
  stderr?: "pipe" | number
) => startNode([main, ...args], environment, stderr)

/**
 * Starts Node with `args`. Its standard error is read, or goes to the descriptor `stderr`. When the scope closes, the process is
 * killed if it still runs.
 */
export const startNode = Effect.fnUntraced(function*(
  args: ReadonlyArray<string>,
  environment: Readonly<Record<string, string>> = {},
  stderr: "pipe" | number = "pipe"
) {
  const output = { stdout: "", stderr: "" }
  const child = yield* Subprocess.start(process.execPath, args, {
    stdio: ["ignore", "pipe", stderr],
    env: { ...process.env, ...environment }
  })
  child.stdout?.on("data", (bytes: Buffer) => output.stdout += bytes.toString())
  child.stderr?.on("data", (bytes: Buffer) => output.stderr += bytes.toString())
  const finished = Effect.map(Subprocess.ended(child), (): Finished => ({ code: child.exitCode, ...output }))
  return { child, output, finished }
})

/** Runs `spegel` to its end. */
export const run = (args: ReadonlyArray<string>, environment?: Readonly<Record<string, string>>) =>
  Effect.scoped(Effect.flatMap(start(args, environment), ({ finished }) => finished))

/** Waits until a mirror says that it is ready; fails after 20 seconds. */
export const untilReady = (url: string) =>
  Effect.tryPromise((signal) => fetch(`${url}/readyz`, { signal })).pipe(
    Effect.filterOrFail((response) => response.ok, () => "not ready" as const),
    Effect.retry({ schedule: Schedule.spaced("50 millis"), times: 400 })
  )
