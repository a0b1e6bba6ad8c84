/**
 * The HTTP face of the mirror: the pull part of the OCI distribution API (`/v2/`), `/livez` and `/readyz`.
 *
 * A request is parsed (`RegistryRequest`), routed to its endpoint (`Endpoints`), brought to an end (`Responder`) and accounted
 * for (`Accounting`). Why it was refused, and in which words, is in `Refusal`.
 */
import * as MonotonicTime from "@spegel-ts/background/MonotonicTime"
import { PeerAuth } from "@spegel-ts/cluster-key/PeerAuth"
import { ContentStore } from "@spegel-ts/content/ContentStore"
import type { DistributionError } from "@spegel-ts/oci/DistributionError"
import { Router } from "@spegel-ts/router/Router"
import type { PeerTransport } from "@spegel-ts/transfer/PeerTransport"
import { Transfer } from "@spegel-ts/transfer/Transfer"
import { Clock, Context, Duration, Effect, Layer, LogLevel, Option, References, Stream } from "effect"
import type { IncomingMessage, ServerResponse } from "node:http"
import type { Activity } from "./Activity.ts"
import type { Handler } from "./HttpListener.ts"
import { AccessControl } from "./internal/auth/AccessControl.ts"
import type { Credentials } from "./internal/auth/ClientCredentials.ts"
import { HotContent } from "./internal/hot/HotContent.ts"
import { TurnAnswers } from "./internal/hot/TurnAnswers.ts"
import { BodyMemory } from "./internal/memory/BodyMemory.ts"
import { reserveOf } from "./internal/memory/BodyReserve.ts"
import * as SocketQueues from "./internal/memory/SocketQueues.ts"
import * as Accounting from "./internal/observe/Accounting.ts"
import * as AuthMetrics from "./internal/observe/AuthMetrics.ts"
import { PullRecord } from "./internal/observe/PullRecord.ts"
import * as RegistryMetrics from "./internal/observe/RegistryMetrics.ts"
import * as RequestSpans from "./internal/observe/RequestSpans.ts"
import { RunningRequests } from "./internal/observe/RunningRequests.ts"
import type { ContentOptions } from "./internal/serve/ContentAnswer.ts"
import * as Endpoints from "./internal/serve/Endpoints.ts"
import * as Refusal from "./internal/serve/Refusal.ts"
import * as RegistryRequest from "./internal/serve/RegistryRequest.ts"
import * as Responder from "./internal/serve/Responder.ts"
import type { PullLog } from "./PullLog.ts"
import * as ResolvePolicy from "./ResolvePolicy.ts"

/** How requests are answered: who may ask, for which images, and the limits on peers, uploads and memory. */
export interface RegistryOptions extends ContentOptions {
  /**
   * The user name and password for people's tools; none for access without them. With them, clients that have neither them nor a
   * token of a node get a 404, which containerd answers by asking upstream. Peers never send them to each other.
   */
  readonly basicAuth: Option.Option<Credentials>
  /**
   * The name of this node in the token of its containerd. Where peers prove themselves (`PeerAuth`), only clients with that token
   * are this node's own; without a name none is.
   */
  readonly nodeName?: string | undefined
  /** Registries that are known to be mirrored; others may be too. Their metrics exist from the start. */
  readonly mirroredRegistries: ReadonlyArray<string>
  /** Bytes that all bodies on their way to clients may use together, buffers of sockets included. */
  readonly maxBodyMemory: number
}

/** Spegel's defaults, and time limits that keep a pull from waiting longer than a user notices. */
export const defaults: RegistryOptions = {
  ...ResolvePolicy.defaults,
  inProgress: "single-flight",
  inProgressWait: Duration.seconds(10),
  upstreamConcurrency: 1,
  verify: "commit",
  verifySize: 4 * 1024 * 1024,
  verifyMemory: 64 * 1024 * 1024,
  recordTtl: Duration.minutes(10),
  circuitFailures: 5,
  circuitPause: Duration.seconds(10),
  resolveTags: true,
  filter: () => true,
  basicAuth: Option.none(),
  mirroredRegistries: [],
  maxUploads: 128,
  maxUploadsPerPeer: 16,
  maxBodyMemory: 96 * 1024 * 1024
}

/**
 * For `HttpListener`: the answer to a request on a connection beyond the bounds. Probes are answered as usual, peers get a 503
 * and ask another node, and containerd gets a 404 and continues with upstream.
 */
export const whenCrowded = (incoming: IncomingMessage): DistributionError | undefined => {
  if (RegistryRequest.isProbe(incoming)) return undefined
  const byPeer = incoming.url?.startsWith("/v2/") !== true || RegistryRequest.isFromPeer(incoming)
  return Refusal.tell(Refusal.Refusal.TooManyConnections({ byPeer }), undefined).error
}

/**
 * Answers the pull part of the OCI distribution API from this node's content, otherwise from peers. Content that neither has is
 * answered 404, and containerd asks the next host of its hosts.toml.
 */
export class Registry extends Context.Service<Registry, {
  /** Answers one request. Every error has the JSON body that the OCI distribution specification gives errors. */
  readonly handler: Handler
  /** Whether an `Authorization` header has a token or a password that this mirror accepts. */
  readonly accepts: (authorization: string | undefined) => boolean
  /** What it is doing now. It costs something only when it is asked for. */
  readonly activity: Effect.Effect<Activity>
  /** Makes `/readyz` answer 503 from now on, so that nobody new is sent here. All else is answered as before. */
  readonly retire: Effect.Effect<void>
}>()("@spegel-ts/registry/Registry") {
  /**
   * Serves the `ContentStore` of this node, and finds peers by the `Router`. Closing it ends what runs beside requests. The
   * answers that are on their way end with `HttpListener`.
   */
  static readonly layer = (
    options: RegistryOptions
  ): Layer.Layer<Registry, never, ContentStore | Router | PeerTransport | PullLog | Transfer> =>
    Layer.effect(Registry, Effect.map(make(options), Registry.of))
}

/** The memory that an answer without a large body takes, in bytes. */
const smallAnswer = 4096

const make = Effect.fn("Registry.make")(function*(options: RegistryOptions) {
  yield* startMetrics(options)
  const memory = yield* bodyMemory(options)
  const hot = new HotContent(options.filter)
  const endpoints = yield* Endpoints.make(options, { hot, memory })
  const accounting = yield* Accounting.make
  const clock = yield* Clock.Clock
  const access = yield* accessControlOf(options, clock)
  const requests = new RunningRequests()
  const respond = Responder.make({ accounting, endpoints, access, hot, requests })
  const context = yield* Effect.context()

  // Traces, and a log at DEBUG, are to have every request.
  const watched = (yield* References.TracerEnabled) || (yield* LogLevel.isEnabled("Debug"))
  const turn = new TurnAnswers()

  /** Repeats a recent answer without a fiber. On a busy node most requests repeat one. */
  const answerAgain = (incoming: IncomingMessage, response: ServerResponse): boolean => {
    if (watched) return false
    const now = MonotonicTime.millisUnsafe(clock)
    const known = hot.repeat(incoming, now)
    if (known === undefined) return false
    const caller = access.client(incoming)
    if (caller === undefined) return false
    const { bytes, headers, request } = known
    AuthMetrics.admittedUnsafe(caller, context)
    turn.give({ response, headers, bytes })
    accounting.repeatedUnsafe(request, bytes.length, {
      time: clock.currentTimeMillisUnsafe(),
      started: now,
      ended: now
    })
    return true
  }

  const answer: Handler = (incoming, response) =>
    answerAgain(incoming, response) ? undefined : RequestSpans.request(
      Effect.clockWith((clock) =>
        Effect.flatMap(
          RequestSpans.parse(Effect.sync(() => RegistryRequest.parse(incoming))),
          (asked) =>
            respond({
              asked,
              incoming,
              response,
              record: new PullRecord(),
              started: MonotonicTime.millisUnsafe(clock)
            })
        )
      ),
      incoming
    )

  /** Waits until a client has read what it was sent, while memory is short. */
  const roomFor = ({ socket }: IncomingMessage) =>
    Effect.callback<void>((resume) => memory.whenRoom(socket, smallAnswer, () => resume(Effect.void)))

  const handler: Handler = (incoming, response) =>
    memory.hasRoom(incoming.socket, smallAnswer)
      ? answer(incoming, response)
      : Effect.flatMap(roomFor(incoming), () => answer(incoming, response) ?? Effect.void)

  return {
    handler,
    accepts: (authorization) => access.accepts(authorization),
    activity: Effect.zipWith(MonotonicTime.millis, endpoints.activity, (now, others) => ({
      requests: requests.list(now),
      ...others
    })),
    retire: endpoints.retire
  } satisfies Registry["Service"]
})

const accessControlOf = Effect.fnUntraced(function*({ basicAuth, nodeName }: RegistryOptions, clock: Clock.Clock) {
  const { id } = yield* (yield* Router).self
  return new AccessControl({
    auth: yield* PeerAuth,
    basicAuth,
    nodeName,
    self: id,
    now: () => clock.currentTimeMillisUnsafe()
  })
})

/** Creates the series whose labels are known, also those of the registries whose images this node holds. */
const startMetrics = Effect.fnUntraced(function*({ mirroredRegistries }: RegistryOptions) {
  const store = yield* ContentStore
  yield* RegistryMetrics.initialise
  yield* AuthMetrics.initialise
  yield* RegistryMetrics.mirroredRegistries(mirroredRegistries)
  yield* store.names.pipe(
    Stream.runForEach(({ reference }) => RegistryMetrics.mirroredRegistries([reference.registry])),
    Effect.ignore,
    Effect.forkScoped
  )
})

const bodyMemory = Effect.fnUntraced(function*({ maxBodyMemory }: RegistryOptions) {
  const { plane } = yield* Transfer
  return yield* Effect.acquireRelease(
    Effect.sync(() =>
      new BodyMemory({
        budget: maxBodyMemory,
        maxUnsent: SocketQueues.maxUnsent(),
        queues: SocketQueues.read,
        reserve: () => reserveOf(Effect.runSync(plane).name)
      })
    ),
    (memory) => Effect.sync(() => memory.close())
  )
})
