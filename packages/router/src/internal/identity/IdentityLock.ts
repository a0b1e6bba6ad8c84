/**
 * Keeps two processes from using the same identity: the user of a key listens on a socket beside it. Two processes share a
 * directory for a while if a new one starts before the old one stops. A process that was killed leaves its socket behind,
 * but nobody listens on it.
 */
import { Effect, type Scope } from "effect"
import { rm } from "node:fs/promises"
import { connect, createServer, type Server } from "node:net"
import { codeOf } from "./DurableFile.ts"

const listen = (path: string): Effect.Effect<Server, Error> =>
  Effect.callback((resume) => {
    const server = createServer((connection) => connection.destroy())
    server.once("error", (error) => resume(Effect.fail(error)))
    server.listen(path, () => resume(Effect.succeed(server.unref())))
  })

/** Whether somebody listens. Only a refused connection or a missing socket proves that nobody does. */
const isAnswered = (path: string): Effect.Effect<boolean> =>
  Effect.callback((resume) => {
    const socket = connect(path, () => {
      socket.destroy()
      resume(Effect.succeed(true))
    })
    socket.once("error", (error) =>
      resume(Effect.succeed(codeOf(error) !== "ECONNREFUSED" && codeOf(error) !== "ENOENT")))
    return Effect.sync(() =>
      socket.destroy()
    )
  })

const close = (server: Server): Effect.Effect<void> =>
  Effect.callback((resume) => {
    // This removes the socket too.
    server.close(() => resume(Effect.void))
  })

/**
 * Takes the lock at a path while the scope is open; false if another process holds it. True also if no lock can be made,
 * as on some file systems.
 */
export const acquire = Effect.fnUntraced(function*(path: string): Effect.fn.Return<boolean, never, Scope.Scope> {
  const take = Effect.acquireRelease(listen(path), close)
  const takeOver = Effect.andThen(Effect.tryPromise(() => rm(path, { force: true })), take)
  return yield* take.pipe(
    Effect.catchIf(
      (error) => codeOf(error) === "EADDRINUSE",
      () => Effect.flatMap(isAnswered(path), (answered) => answered ? Effect.succeed(undefined) : takeOver)
    ),
    Effect.match({ onSuccess: (server) => server !== undefined, onFailure: () => true })
  )
})
