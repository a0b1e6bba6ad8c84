/**
 * Keeps a peer busy with requests of the mirror under test, so that the mirror asks another peer first: of two peers it
 * chooses the less busy one.
 */
import { Effect } from "effect"
import { type ClientRequest, get } from "node:http"

/** A peer that answered later than another counts for a while as if it had four requests more (`PeerMemory`). */
const requests = 6

const begin = (url: string) =>
  Effect.callback<ClientRequest, Error>((resume) => {
    const request = get(url, { agent: false }, ({ statusCode }) =>
      // The body is never read.
      resume(statusCode === 200 ? Effect.succeed(request) : Effect.fail(new Error(`${url} answers ${statusCode}`))))
    // It is sent at the end, too, when the request is destroyed.
    request.on("error", (error) => resume(Effect.fail(error)))
    return Effect.sync(() => request.destroy())
  })

/**
 * Has the mirror relay a blob of that peer several times, to a client that does not read, while the scope is open. The blob
 * has to be larger than what buffers hold, and the peer the only one that has it.
 */
export const occupy = (url: string) =>
  Effect.forEach(
    Array.from({ length: requests }),
    () => Effect.acquireRelease(begin(url), (request) => Effect.sync(() => request.destroy())),
    { concurrency: "unbounded", discard: true }
  )
