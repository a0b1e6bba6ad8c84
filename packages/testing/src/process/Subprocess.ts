/**
 * Processes that run beside a test, each ended with the scope that started it. A process that is out of reach of
 * `SIGTERM`, frozen or in the middle of its start, must not outlive its test: so all are killed.
 */
import { Effect } from "effect"
import { type ChildProcess, spawn, type SpawnOptions } from "node:child_process"

const hasEnded = ({ exitCode, pid, signalCode }: ChildProcess): boolean =>
  pid === undefined || exitCode !== null || signalCode !== null

/** Waits until the process has ended and its output has been read. */
export const ended = (child: ChildProcess): Effect.Effect<void> =>
  Effect.callback((resume) => {
    if (hasEnded(child)) resume(Effect.void)
    else child.once("close", () => resume(Effect.void))
  })

/** Kills the process with SIGKILL, unless it has ended, and waits for its end. */
export const kill = (child: ChildProcess): Effect.Effect<void> =>
  Effect.suspend(() => {
    child.kill("SIGKILL")
    return ended(child)
  })

/** Starts a program. One that cannot be started counts as ended. The caller sees to its end. */
export const launch = (command: string, args: ReadonlyArray<string>, options: SpawnOptions) =>
  // Node throws the event of a failed start where nobody listens.
  Effect.sync(() => spawn(command, args, options).on("error", () => undefined))

/** Starts a program, and kills it when the scope closes. */
export const start = (command: string, args: ReadonlyArray<string>, options: SpawnOptions) =>
  Effect.acquireRelease(launch(command, args, options), kill)
