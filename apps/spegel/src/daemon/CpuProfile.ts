/** Takes a CPU profile of this process, for `--debug-profile`: one at a time, for a bounded time. Chrome's developer tools open it. */
import { Effect, Option, Semaphore } from "effect"

export const maxSeconds = 60
const defaultSeconds = 10

/** The seconds that a query asks for; none if they are out of bounds. */
export const secondsOf = (query: URLSearchParams): Option.Option<number> => {
  const text = query.get("seconds") ?? String(defaultSeconds)
  return /^[1-9]\d?$/.test(text) && Number(text) <= maxSeconds ? Option.some(Number(text)) : Option.none()
}

/** Loads the inspector only when it is used. */
const profiler = Effect.acquireRelease(
  Effect.promise(async () => {
    const { Session } = await import("node:inspector/promises")
    const session = new Session()
    session.connect()
    return session
  }),
  (session) => Effect.sync(() => session.disconnect())
)

const take = Effect.fnUntraced(function*(seconds: number) {
  const session = yield* profiler
  yield* Effect.promise(() => session.post("Profiler.enable"))
  yield* Effect.promise(() => session.post("Profiler.start"))
  yield* Effect.sleep(seconds * 1000)
  const { profile } = yield* Effect.promise(() => session.post("Profiler.stop"))
  return JSON.stringify(profile)
}, Effect.scoped)

/** Gives a function that profiles for so many seconds; none if a profile is being taken. */
export const make = Effect.map(
  Semaphore.make(1),
  (place) => (seconds: number): Effect.Effect<Option.Option<string>> => place.withPermitsIfAvailable(1)(take(seconds))
)
