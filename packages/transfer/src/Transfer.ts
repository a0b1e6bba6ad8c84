/**
 * Moves a body to a client. The body comes from a file, from a file that is still being written, or from a peer. The
 * zero-copy layer moves bytes within the kernel (sendfile(2), splice(2)), on a thread of its own. The portable layer copies
 * them in JavaScript, and works everywhere. Otherwise both do the same.
 *
 * The caller sets the time limits: it reads `Progress` meanwhile, and interrupts. The caller also writes the HTTP head;
 * `Transfer` only says when it goes out.
 */
import * as MetricFamily from "@spegel-ts/background/MetricFamily"
import { Context, Deferred, Effect, Exit, Layer, Metric, Scope } from "effect"
import type { Socket } from "node:net"
import { type Body, ClientGone, type Moved, TransferAborted, type TransferError } from "./Body.ts"
import { ClientSink, sent } from "./ClientSink.ts"
import { type DataPlane, type DataPlaneChoice, type LostRuns, maxLostRuns } from "./DataPlane.ts"
import { Mover } from "./internal/mover/Mover.ts"
import * as Portable from "./internal/Portable.ts"
import { prove, ZeroCopyUnavailable } from "./internal/Proof.ts"
import * as ZeroCopy from "./internal/ZeroCopy.ts"

/** The data plane to use, and where its lost runs are remembered. */
export interface TransferOptions {
  readonly plane: DataPlaneChoice
  /** Remembers runs that ended by a fault of zero-copy. Without it such runs are not remembered. */
  readonly lostRuns?: LostRuns | undefined
}

/** Moves bodies to clients. Both layers pass `transferConformance`. */
export class Transfer extends Context.Service<Transfer, {
  /** How bodies move now. If the zero-copy thread dies, bodies move the portable way from then on. */
  readonly plane: Effect.Effect<DataPlane>
  /**
   * Moves a body to its last byte. Interrupt it to abort.
   *
   * However it ends, neither connection is closed, nothing refers to them any more, and `Progress.moved` is exact, except
   * after `ClientGone`. The client's connection can be written to again. The peer's can be read again if `Moved.source` is
   * `quiet`.
   *
   * Fails with `ClientGone` if the client left, `SourceEnded` if the source ended early (another source can continue at
   * `Progress.moved`), `TransferFailed` if the mover broke (the same source can), and `TransferAborted` if the layer closes.
   */
  readonly move: (body: Body) => Effect.Effect<Moved, TransferError>
  /** The number of bodies being moved, and of pipes kept for the next ones. */
  readonly usage: Effect.Effect<{ readonly bodies: number; readonly idlePipes: number }>
}>()("@spegel-ts/transfer/Transfer") {
  /** Copies bytes in JavaScript. */
  static readonly layerPortable: Layer.Layer<Transfer> = Layer.effect(this, Effect.suspend(() => portable(undefined)))

  /** Moves bytes within the kernel. Fails if a trial at start shows that this does not work here. */
  static readonly layerZeroCopy: Layer.Layer<Transfer, ZeroCopyUnavailable> = Layer.effect(
    this,
    Effect.suspend(() => zeroCopy)
  )

  /** The layer that `plane` chooses; portable wherever zero-copy does not work. Logs one line that says which. */
  static readonly layer = (options: TransferOptions): Layer.Layer<Transfer> => Layer.effect(this, chosen(options))
}

/** Bytes of a file that go out together with the head. */
const firstBytes = 16 * 1024

/** The part that both layers share: begins bodies, and ends them when the layer is closed. */
const withLifetime = Effect.fnUntraced(function*(
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

/** Sends the first bytes together with the head, then the rest. */
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

/** Fails once the client's connection is closed, by either side. */
const gone = (socket: Socket): Effect.Effect<never, ClientGone> =>
  Effect.callback((resume) => {
    const onClose = () => resume(Effect.fail(new ClientGone()))
    if (socket.destroyed) return onClose()
    socket.once("close", onClose)
    return Effect.sync(() => socket.off("close", onClose))
  })

const portable = Effect.fnUntraced(function*(reason: string | undefined) {
  const { bodies, move } = yield* withLifetime(Portable.move)
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
        Effect.andThen(Effect.logWarning(`${reason}: bodies move the portable way from now on`))
      )
    }),
    Effect.forkScoped
  )
  const { bodies, move } = yield* withLifetime((rest) => ZeroCopy.move(mover, rest))
  yield* prove(mover, move)
  return Transfer.of({
    plane: Effect.sync(() => plane),
    move,
    usage: Effect.sync(() => ({ bodies: bodies(), idlePipes: mover.idlePipes }))
  })
})

/** Remembers that zero-copy is in use, as long as it is. */
const recorded = ({ begun, closed }: LostRuns) => Effect.acquireRelease(begun, () => closed)

const planes = ["zero-copy", "portable"] as const

const inUse = MetricFamily.make(
  Metric.gauge("spegel_data_plane", { description: "1 for the data plane that moves bodies, 0 for the other" }),
  planes.map((plane) => ({ plane }))
)

const publish = (name: DataPlane["name"]) =>
  Effect.forEach(planes, (plane) => Metric.update(inUse.of({ plane }), plane === name ? 1 : 0), { discard: true })

const chosen = Effect.fnUntraced(function*({ lostRuns, plane }: TransferOptions) {
  if (plane === "portable") {
    yield* Effect.logInfo("data plane: portable")
    return yield* portable(undefined)
  }
  const lost = lostRuns === undefined ? 0 : yield* lostRuns.count
  // If this run ends in good order, the next one may try zero-copy again.
  if (lostRuns !== undefined && lost >= maxLostRuns) yield* Effect.addFinalizer(() => lostRuns.closed)
  const attempt = lost >= maxLostRuns
    ? Effect.fail(new ZeroCopyUnavailable({ reason: `${lost} runs in a row ended in the middle of it` }))
    : Effect.andThen(lostRuns === undefined ? Effect.void : recorded(lostRuns), zeroCopy)
  // A mover that failed its trial is released at once, and not when the layer is closed.
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
  yield* log(`data plane: portable, because zero-copy does not work here: ${reason}`)
  return yield* portable(reason)
})
