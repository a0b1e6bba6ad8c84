/**
 * Moves a body to a client: of a file, of a file that somebody still writes, of a peer. There are two layers. Zero-copy
 * moves bytes within the kernel (sendfile(2), splice(2)) on a thread of its own. Portable copies them in JavaScript, and works
 * everywhere. They do the same otherwise.
 *
 * Time limits are the caller's: it reads `Progress` meanwhile, and interrupts. HTTP is the caller's too, but for the moment
 * at which the head goes out.
 */
import { Context, Deferred, Effect, Exit, Layer, Metric, Scope } from "effect"
import type { Socket } from "node:net"
import { type Body, ClientGone, type Moved, TransferAborted, type TransferError } from "./Body.ts"
import { ClientSink, sent } from "./ClientSink.ts"
import { type DataPlane, type DataPlaneChoice, type LostRuns, maxLostRuns } from "./DataPlane.ts"
import { Mover } from "./internal/mover/Mover.ts"
import * as Portable from "./internal/Portable.ts"
import { prove, ZeroCopyUnavailable } from "./internal/Proof.ts"
import * as ZeroCopy from "./internal/ZeroCopy.ts"

export interface TransferOptions {
  readonly plane: DataPlaneChoice
  readonly lostRuns?: LostRuns | undefined
}

export class Transfer extends Context.Service<Transfer, {
  /** The way that bytes go now: a mover that dies leaves the portable one. */
  readonly plane: Effect.Effect<DataPlane>
  /**
   * Moves a body to its last byte.
   *
   * Neither end is closed, however it ends. The client's connection may be written to again, and the peer's be read from
   * where it was quiet after the last byte. Interrupt it to abort: it ends once nothing refers to the connections any more,
   * and `Progress.moved` is exact from then on, as after every error but `ClientGone`.
   */
  readonly move: (body: Body) => Effect.Effect<Moved, TransferError>
  /** Bodies that are being moved, and pipes that wait for one. */
  readonly usage: Effect.Effect<{ readonly bodies: number; readonly idlePipes: number }>
}>()("@spegel-ts/transfer/Transfer") {
  /** In JavaScript. */
  static readonly layerPortable: Layer.Layer<Transfer> = Layer.effect(this, Effect.suspend(() => portable(undefined)))

  /** Within the kernel; fails where that does not prove itself. */
  static readonly layerZeroCopy: Layer.Layer<Transfer, ZeroCopyUnavailable> = Layer.effect(
    this,
    Effect.suspend(() => zeroCopy)
  )

  /** As chosen; portable wherever zero-copy is not to be had. Says in one line which it is. */
  static readonly layer = (options: TransferOptions): Layer.Layer<Transfer> => Layer.effect(this, chosen(options))
}

/** Bytes of a file that go out with the head. */
const firstBytes = 16 * 1024

/** The part that both layers share: it begins bodies, and ends them when the layer is closed. */
const around = Effect.fnUntraced(function*(
  moveRest: (rest: Portable.Rest) => Effect.Effect<Moved, TransferError>
) {
  const closing = Deferred.makeUnsafe<never, TransferAborted>()
  const running = new Set<Deferred.Deferred<void>>()
  yield* Effect.addFinalizer(() =>
    Effect.andThen(
      Deferred.fail(closing, new TransferAborted()),
      Effect.forEach(running, (body) => Deferred.await(body))
    )
  )
  const move = (body: Body): Effect.Effect<Moved, TransferError> =>
    Effect.suspend(() => {
      if (Deferred.isDoneUnsafe(closing)) return Effect.fail(new TransferAborted())
      const over = Deferred.makeUnsafe<void>()
      running.add(over)
      return Effect.raceAllFirst([whole(body, moveRest), gone(body.client.socket), Deferred.await(closing)]).pipe(
        Effect.ensuring(Effect.suspend(() => {
          running.delete(over)
          return Deferred.succeed(over, undefined)
        }))
      )
    })
  return { move, bodies: () => running.size }
})

/** The first bytes go out with the head, then the rest follows. */
const whole = Effect.fnUntraced(function*(
  body: Body,
  moveRest: (rest: Portable.Rest) => Effect.Effect<Moved, TransferError>
): Effect.fn.Return<Moved, TransferError> {
  const { client, length, progress, source } = body
  const sink = new ClientSink(client, progress)
  const first = yield* source._tag === "Peer"
    ? earlyOf(source.early, body)
    : Portable.firstOf(source, Math.min(firstBytes, length), progress)
  yield* sent(sink, first)
  if (first.length < length) return yield* moveRest({ ...body, sink, moved: first.length })
  const more = source._tag === "Peer" && source.early.length > length
  return { source: more ? "sent more" : "quiet" }
})

const earlyOf = (early: Buffer, { length, progress }: Body) =>
  Effect.sync(() => {
    const bytes = early.subarray(0, length)
    progress.take(bytes.length)
    return bytes
  })

/** Fails once the client's connection is closed, from either side. */
const gone = (socket: Socket): Effect.Effect<never, ClientGone> =>
  Effect.callback((resume) => {
    const onClose = () => resume(Effect.fail(new ClientGone()))
    if (socket.destroyed) return onClose()
    socket.once("close", onClose)
    return Effect.sync(() => socket.off("close", onClose))
  })

const portable = Effect.fnUntraced(function*(reason: string | undefined) {
  const { bodies, move } = yield* around(Portable.move)
  yield* publish("portable")
  return Transfer.of({
    plane: Effect.succeed({ name: "portable", reason }),
    move,
    usage: Effect.sync(() => ({ bodies: bodies(), idlePipes: 0 }))
  })
})

const zeroCopy: Effect.Effect<Transfer["Service"], ZeroCopyUnavailable, Scope.Scope> = Effect.gen(function*() {
  const mover = yield* Effect.acquireRelease(
    Effect.tryPromise({
      try: () => Mover.start(),
      catch: (cause) => new ZeroCopyUnavailable({ reason: String(cause) })
    }),
    (mover) => Effect.promise(() => mover.close())
  )
  let plane: DataPlane = { name: "zero-copy", reason: undefined }
  yield* Effect.promise(() => mover.died).pipe(
    Effect.tap((reason) => {
      plane = { name: "portable", reason }
      return publish("portable").pipe(
        Effect.andThen(Effect.logWarning(`${reason}: bodies go the portable way from now on`))
      )
    }),
    Effect.forkScoped
  )
  const { bodies, move } = yield* around((rest) => ZeroCopy.move(mover, rest))
  yield* prove(mover, move)
  return Transfer.of({
    plane: Effect.sync(() => plane),
    move,
    usage: Effect.sync(() => ({ bodies: bodies(), idlePipes: mover.idlePipes }))
  })
})

/** Remembers that zero-copy is in use, for as long as it is. */
const recorded = ({ begun, closed }: LostRuns) => Effect.acquireRelease(begun, () => closed)

const inUse = Metric.gauge("spegel_data_plane", {
  description: "1 for the data plane that moves bodies, 0 for the other"
})

const publish = (name: DataPlane["name"]) =>
  Effect.forEach(
    ["zero-copy", "portable"] as const,
    (plane) => Metric.update(Metric.withAttributes(inUse, { plane }), plane === name ? 1 : 0),
    { discard: true }
  )

const chosen = Effect.fnUntraced(function*({ lostRuns, plane }: TransferOptions) {
  if (plane === "portable") {
    yield* Effect.logInfo("data plane: portable")
    return yield* portable(undefined)
  }
  const lost = lostRuns === undefined ? 0 : yield* lostRuns.count
  // A run that ends in good order lets the next one try again.
  if (lostRuns !== undefined && lost >= maxLostRuns) yield* Effect.addFinalizer(() => lostRuns.closed)
  const attempt = lost >= maxLostRuns
    ? Effect.fail(new ZeroCopyUnavailable({ reason: `${lost} runs in a row ended in the middle of it` }))
    : Effect.andThen(lostRuns === undefined ? Effect.void : recorded(lostRuns), zeroCopy)
  // A mover that did not prove itself is let go of at once, and not when the layer is closed.
  const scope = yield* Scope.fork(yield* Effect.scope)
  const result = yield* attempt.pipe(
    Scope.provide(scope),
    Effect.tapError((error) => Scope.close(scope, Exit.fail(error))),
    Effect.result
  )
  if (result._tag === "Success") {
    yield* Effect.logInfo("data plane: zero-copy")
    yield* publish("zero-copy")
    return result.success
  }
  const { reason } = result.failure
  const log = plane === "auto" && lost < maxLostRuns ? Effect.logInfo : Effect.logWarning
  yield* log(`data plane: portable, since zero-copy is not to be had: ${reason}`)
  return yield* portable(reason)
})
