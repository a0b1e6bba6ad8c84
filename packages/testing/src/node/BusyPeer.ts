/** Keeps a peer busy with requests of a mirror, so that the mirror asks another peer first: of two it takes the less busy one. */
import { Effect, Schedule } from "effect"
import { type ClientRequest, get } from "node:http"

type Headers = Readonly<Record<string, string>>

const begin = (url: string, headers: Headers) =>
  Effect.callback<ClientRequest, string>((resume) => {
    const request = get(url, { agent: false, headers }, ({ statusCode }) =>
      // Nobody reads the body.
      resume(statusCode === 200 ? Effect.succeed(request) : Effect.fail(`${url} answers ${statusCode}`)))
    request.on("error", ({ message }) => resume(Effect.fail(message)))
    return Effect.sync(() => request.destroy())
  })

/** On a busy machine, the mirror may take too long to find the peer. */
const untilBegun = (url: string, headers: Headers) =>
  begin(url, headers).pipe(Effect.retry({ schedule: Schedule.spaced("100 millis"), times: 100 }))

/**
 * Makes a mirror relay the blob at `url`, as many times at once as there are `requests`, to a client that does not read, while the
 * scope is open. It is asked with these header fields. The blob has to be larger than the buffers on the way, and held by that peer alone.
 */
export const occupy = (url: string, requests = 1, headers: Headers = {}) =>
  Effect.forEach(
    Array.from({ length: requests }),
    () => Effect.acquireRelease(untilBegun(url, headers), (request) => Effect.sync(() => request.destroy())),
    { concurrency: "unbounded", discard: true }
  )
