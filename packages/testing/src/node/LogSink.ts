/** Destinations for the log of a process, and the ways in which they may fail. */
import { Effect } from "effect"
import { execFileSync } from "node:child_process"
import { closeSync, constants, openSync } from "node:fs"
import { join } from "node:path"
import { temporary } from "../TemporaryDirectory.ts"

/** A pipe that is read, one that never is, one whose reader is gone, and a full device. */
export const kinds = ["read", "never read", "reader gone", "device full"] as const

export type Kind = typeof kinds[number]

const opened = (path: string, flags: number) => Effect.sync(() => openSync(path, flags))
const closed = (fd: number) => Effect.sync(() => closeSync(fd))
const open = (path: string, flags: number) => Effect.acquireRelease(opened(path, flags), closed)

/** The standard error for a process that is started while the scope is open; this process reads a `pipe`. */
export const stderrOf = Effect.fnUntraced(function*(kind: Kind) {
  if (kind === "read") return "pipe" as const
  if (kind === "device full") return yield* open("/dev/full", constants.O_WRONLY)
  const path = join(yield* temporary, "log")
  execFileSync("mkfifo", [path])
  const reader = opened(path, constants.O_RDONLY | constants.O_NONBLOCK)
  if (kind === "never read") {
    yield* Effect.acquireRelease(reader, closed)
    return yield* open(path, constants.O_WRONLY)
  }
  const gone = yield* reader
  const fd = yield* open(path, constants.O_WRONLY)
  yield* closed(gone)
  return fd
})
