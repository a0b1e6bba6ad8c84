/**
 * Ends many bodies at random times and in random ways, over a layer of `Transfer`. Needs `@effect/vitest`; import it from tests
 * only.
 */
import { assert, it } from "@effect/vitest"
import { Cause, Effect, Exit, Fiber, type Layer, Option, Random } from "effect"
import type { FileHandle } from "node:fs/promises"
import type { Moved, TransferError } from "./Body.ts"
import * as Connections from "./internal/conformance/Connections.ts"
import * as Content from "./internal/conformance/Content.ts"
import * as Holdings from "./internal/conformance/Holdings.ts"
import {
  bytesOf,
  type ClientOf,
  fileSource,
  head,
  moving,
  type PeerOf,
  randomPart,
  receiving,
  sending
} from "./internal/conformance/Trials.ts"
import { Progress } from "./Progress.ts"
import { Transfer } from "./Transfer.ts"

const maxLength = 2 * 1024 * 1024

/** Events during a body, and the end that each causes unless the body is whole by that time. */
const clientEvents = {
  "the client closes": "ClientGone",
  "the client resets": "ClientGone",
  "the server closes": "ClientGone"
} as const
const peerEvents = {
  "the peer closes": "SourceEnded",
  "the peer resets": "SourceEnded",
  "the peer is closed here": "SourceEnded",
  "the peer sends more": "whole"
} as const
const events = { ...clientEvents, ...peerEvents, "it is aborted": "interrupted", "nothing": "whole" } as const
type Event = keyof typeof events
const relayEvents = Object.keys(events) as ReadonlyArray<Event>
const fileEvents = relayEvents.filter((event) => !(event in peerEvents))

type Running = Fiber.Fiber<Moved, TransferError>

/** Makes the event happen. */
const provoke = (
  event: Event,
  client: ClientOf,
  peer: PeerOf | undefined,
  running: Running
): Effect.Effect<unknown> => {
  switch (event) {
    case "the client closes":
      return Effect.sync(() => client.far.destroy())
    case "the client resets":
      return Effect.sync(() => client.far.resetAndDestroy())
    case "the server closes":
      return Effect.sync(() => client.near.destroy())
    case "the peer closes":
      return Effect.sync(() => peer?.remote.end())
    case "the peer resets":
      return Effect.sync(() => peer?.remote.resetAndDestroy())
    case "the peer is closed here":
      return Effect.sync(() => peer?.peer.destroy())
    case "it is aborted":
      return Fiber.interrupt(running)
    case "the peer sends more":
    case "nothing":
      return Effect.void
  }
}

const outcomeOf = (exit: Exit.Exit<Moved, TransferError>): string =>
  Exit.isSuccess(exit)
    ? "whole"
    : Option.match(Cause.findErrorOption(exit.cause), { onNone: () => "interrupted", onSome: ({ _tag }) => _tag })

/** Defines a test of `trials` bodies, `concurrency` at a time: bytes are right, and no descriptor, thread or body is left. */
export const transferStress = (
  name: string,
  layer: Layer.Layer<Transfer, unknown>,
  { concurrency, trials }: { readonly trials: number; readonly concurrency: number }
) => {
  const happened = new Set<string>()

  const trial = Effect.fnUntraced(function*(index: number, handle: FileHandle) {
    const relays = yield* Random.nextBoolean
    const possible = relays ? relayEvents : fileEvents
    const event = possible[yield* Random.nextIntBetween(0, possible.length)] ?? "nothing"
    const part = yield* randomPart(maxLength)
    const at = yield* Random.nextIntBetween(0, part.length + 1)
    const client = yield* Connections.client
    const peer = relays ? yield* Connections.peer : undefined
    const receiver = receiving(client, part)
    // A client that reads nothing leaves bytes in sockets and pipes.
    if (yield* Random.nextBoolean) receiver.pause()
    const given = event === "the peer closes" ? { ...part, length: at } : part
    const source = peer === undefined
      ? fileSource(handle, part)
      : yield* sending(peer, given, event === "the peer sends more" ? Buffer.alloc(10) : undefined)
    const progress = new Progress()
    const running = yield* Effect.forkChild(moving(client, source, part.length, progress))
    yield* Effect.timeoutOption(receiver.received(head.length + at), yield* Random.nextIntBetween(0, 10))
    yield* provoke(event, client, peer, running)
    receiver.resume()
    const outcome = outcomeOf(yield* Fiber.await(running))
    happened.add(`${event}: ${outcome}`)
    assert.isTrue(outcome === "whole" || outcome === events[event], `trial ${index}: ${event}: ${outcome}`)
    if (!(event in clientEvents)) {
      // Exactly the bytes counted as moved have come, so the rest makes the body whole.
      if (client.near.bytesWritten === 0) yield* Connections.write(client.near, head)
      yield* Connections.write(client.near, bytesOf(part).subarray(progress.moved))
      yield* receiver.all
      assert.isTrue(receiver.whole, `trial ${index}: ${event}: ${outcome}`)
    }
    assert.isTrue(receiver.right, `trial ${index}: ${event}: wrong bytes`)
  }, Effect.scoped)

  it.live(
    `${trials} random ends of bodies, ${name}: bytes are right and nothing is left`,
    () =>
      Effect.gen(function*() {
        const before = yield* Holdings.look
        yield* Effect.gen(function*() {
          const handle = yield* Content.file
          const all = Array.from({ length: trials }, (_, index) => index)
          yield* Effect.forEach(all, (index) => trial(index, handle), { concurrency, discard: true })
          assert.strictEqual((yield* (yield* Transfer).usage).bodies, 0)
        }).pipe(Effect.scoped, Effect.provide(layer), Random.withSeed(name))
        assert.deepStrictEqual(yield* Holdings.leftOver(before), [])
        for (const [event, outcome] of Object.entries(events)) {
          assert.isTrue(happened.has(`${event}: ${outcome}`), `${event}: ${outcome} never happened`)
        }
      }),
    3_600_000
  )
}
