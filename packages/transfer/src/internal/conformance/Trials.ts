/** Bodies in the suites: a client, a source, and what the client should get. */
import { Effect, Fiber, Random, Schedule, type Scope } from "effect"
import type { FileHandle } from "node:fs/promises"
import type { Moved, Source, TransferError } from "../../Body.ts"
import { Progress } from "../../Progress.ts"
import { Transfer } from "../../Transfer.ts"
import * as Connections from "./Connections.ts"
import * as Content from "./Content.ts"

/** Runs a test over the layer of a suite. */
export type Test = (title: string, body: Effect.Effect<void, unknown, Transfer | Scope.Scope>) => void

export const mib = 1024 * 1024

export const head = Buffer.from("HTTP/1.1 200 OK\r\n\r\n")

export type ClientOf = Effect.Success<typeof Connections.client>
export type PeerOf = Effect.Success<typeof Connections.peer>

/** A part of the content: a body. */
export interface Part {
  readonly offset: number
  readonly length: number
}

/** More than sockets and pipes hold. */
export const large: Part = { offset: 4321, length: 11 * mib }

export const bytesOf = ({ length, offset }: Part): Buffer => Content.bytes.subarray(offset, offset + length)

/** A random part of any length up to `most`, usually a long one. */
export const randomPart = (most: number): Effect.Effect<Part> =>
  Effect.gen(function*() {
    const exponent = yield* Random.nextBetween(0, Math.log2(most))
    const length = Math.floor((yield* Random.nextBoolean) ? 2 ** exponent : most * (yield* Random.next))
    return { length, offset: yield* Random.nextIntBetween(0, Content.bytes.length - length) }
  })

/** Moves a body to a client, after a head. */
export const moving = (
  { near }: ClientOf,
  source: Source,
  length: number,
  progress = new Progress()
): Effect.Effect<Moved, TransferError, Transfer> => {
  const begin = () => void near.write(head)
  return Effect.flatMap(Transfer, ({ move }) => move({ source, client: { socket: near, begin }, length, progress }))
}

/** Moves the rest of a body that another source began. */
export const movingOn = (
  { near }: ClientOf,
  source: Source,
  length: number,
  progress: Progress
): Effect.Effect<Moved, TransferError, Transfer> =>
  Effect.flatMap(Transfer, ({ move }) => move({ source, client: { socket: near }, length, progress }))

/** A receiver of a head and a part. */
export const receiving = (client: ClientOf, part: Part): Connections.Receiver =>
  new Connections.Receiver(client.far, Buffer.concat([head, bytesOf(part)]))

/** A peer that sends a part in two writes and then `more`. The first write is read together with the head. */
export const sending = Effect.fnUntraced(function*(
  { early, peer, remote }: PeerOf,
  part: Part,
  more: Buffer = Buffer.alloc(0)
): Effect.fn.Return<Extract<Source, { readonly _tag: "Peer" }>, never, Scope.Scope> {
  const bytes = Buffer.concat([bytesOf(part), more])
  const split = Math.min(bytes.length, 1 + (yield* Random.nextIntBetween(0, 20_000)))
  yield* Connections.write(remote, bytes.subarray(0, split))
  const first = yield* early(Math.min(1, bytes.length))
  yield* Effect.forkScoped(Connections.write(remote, bytes.subarray(split)), { startImmediately: true })
  return { _tag: "Peer", peer, early: first }
})

export const fileSource = (handle: FileHandle, { offset }: Part): Source => ({ _tag: "File", handle, offset })

/** Waits until a condition holds. The time limit of the test stops one that never does. */
export const until = (holds: () => boolean): Effect.Effect<void> =>
  Effect.sync(holds).pipe(
    Effect.repeat({ schedule: Schedule.spaced("5 millis"), until: (held) => held }),
    Effect.asVoid
  )

/** Waits until a body does not move any more: the kernel has no room for the client's bytes. */
export const stuck = (progress: Progress): Effect.Effect<void> => {
  let last = -1
  let looks = 0
  return until(() => {
    const { moved } = progress
    looks = moved === last ? looks + 1 : 0
    last = moved
    return moved > 0 && looks > 20
  })
}

/** The result of a body that was started before. */
export const ending = (fiber: Fiber.Fiber<Moved, TransferError>) => Effect.result(Fiber.join(fiber))
