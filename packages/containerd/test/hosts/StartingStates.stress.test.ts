/** From each state of the file system: configured, restored, killed, and by several runs at the same time. */
import { assert, describe, it } from "@effect/vitest"
import * as MirrorConfiguration from "@spegel-ts/containerd/MirrorConfiguration"
import * as StartingStates from "@spegel-ts/testing/containerd/StartingStates"
import { Effect, Option, Redacted } from "effect"
import { join } from "node:path"
import { options, registry, temporary } from "./HostsFixture.ts"
import * as KilledFileSystem from "./KilledFileSystem.ts"

const basicAuth = Option.some({ username: "user", password: Redacted.make("secret") })
/** What containerd sends to the mirror. */
const credentials = {
  "a password": { basicAuth },
  "a token": { basicAuth: Option.none(), token: Redacted.make("v1.0123456789abcdef.node-1.signature") },
  nothing: { basicAuth: Option.none() }
}
type Credential = keyof typeof credentials

// These are left as they are.
const mirrored = StartingStates.states.filter(({ isMirrored }) => isMirrored !== false)

describe.each(mirrored)("starting from $name", (state) => {
  const isEven = StartingStates.states.indexOf(state) % 2 === 0
  const start = Effect.map(temporary, (directory) => {
    state.make(directory, registry)
    const before = StartingStates.snapshot(directory)
    state.before?.(directory, registry)
    const configPath = join(directory, "certs.d")
    return {
      before,
      snapshot: () => StartingStates.snapshot(directory),
      write: (prependExisting: boolean, credential: Credential = isEven ? "a password" : "a token") =>
        MirrorConfiguration.write({
          ...options(configPath),
          ...credentials[credential],
          prependExisting,
          mirroredRegistries: state.only === true ? [`http://${registry}`] : []
        }),
      remove: MirrorConfiguration.remove(configPath)
    }
  })
  const killedAt = (at: number, effect: Effect.Effect<unknown, Error>) =>
    Effect.promise(() => KilledFileSystem.run(at, () => Effect.runPromise(effect)))
  const all = (...effects: ReadonlyArray<Effect.Effect<unknown, Error>>) =>
    killedAt(Infinity, Effect.all(effects, { concurrency: "unbounded" }))

  const isText = StartingStates.texts.includes(state)
  const sent = ["a password", "a token"] as const
  const ways = (isText ? [isEven] : [true, false]).flatMap((prepend) =>
    sent.map((credential) => ({ prepend, credential }))
  )
  it.live.each(ways)(
    "is restored, again and again (prepend: $prepend, with $credential)",
    ({ credential, prepend }) =>
      Effect.gen(function*() {
        const { before, remove, snapshot, write } = yield* start
        yield* all(write(prepend, credential))
        const written = snapshot()
        assert.notDeepEqual(written, before)
        yield* all(write(prepend, credential))
        assert.deepStrictEqual(snapshot(), written)
        yield* all(write(!prepend, "nothing"))
        yield* all(write(!prepend, credential))
        yield* all(remove)
        assert.deepStrictEqual(snapshot(), before)
        yield* all(remove)
        assert.deepStrictEqual(snapshot(), before)
      }).pipe(Effect.scoped)
  )

  // A text is one more file to replace.
  if (isText) return
  // Half of the states in either way.
  const prepend = isEven
  it.live("is completed by the next run, wherever one is killed", () =>
    Effect.gen(function*() {
      const whole = yield* start
      const writes = yield* killedAt(Infinity, whole.write(prepend))
      const written = whole.snapshot()
      const removals = yield* killedAt(Infinity, whole.remove)
      assert.isAbove(writes, 4)
      assert.isAbove(removals, 2)
      for (let at = 1; at <= writes; at++) {
        const { before, remove, snapshot, write } = yield* start
        yield* killedAt(at, write(prepend))
        yield* all(write(prepend))
        assert.deepStrictEqual(snapshot(), written, `configuration killed at ${at} of ${writes}`)
        yield* all(remove)
        const again = yield* start
        yield* killedAt(at, again.write(prepend))
        yield* all(again.remove)
        assert.deepStrictEqual([snapshot(), again.snapshot()], [before, before], `killed at ${at}, then cleanup`)
      }
      for (let at = 1; at <= removals; at++) {
        const { before, remove, snapshot, write } = yield* start
        yield* all(write(prepend))
        yield* killedAt(at, remove)
        yield* all(remove)
        assert.deepStrictEqual(snapshot(), before, `cleanup killed at ${at} of ${removals}`)
      }
    }).pipe(Effect.scoped), 60_000)

  it.live("is restored after runs at the same time", () =>
    Effect.gen(function*() {
      const { before, remove, snapshot, write } = yield* start
      const other = yield* start
      yield* all(other.write(true))
      for (let turn = 0; turn < 2; turn++) {
        yield* all(write(true), write(true), write(true))
        assert.deepStrictEqual(snapshot(), other.snapshot())
        yield* all(remove, remove)
        assert.deepStrictEqual(snapshot(), before)
        const mixed = yield* start
        yield* all(mixed.write(true), mixed.remove, mixed.write(false))
        yield* all(mixed.remove)
        assert.deepStrictEqual(mixed.snapshot(), before)
      }
    }).pipe(Effect.scoped))
})
