/**
 * The HTTP face of the mirror: the pull part of the OCI distribution API (`/v2/`), `/livez` and `/readyz`.
 *
 * Never a 5xx for missing content: what neither this node nor a peer can serve is a 404 (`ContentAnswer`).
 */
import * as MonotonicTime from "@spegel-ts/background/MonotonicTime"
import { ContentStore, type StoreUnavailable } from "@spegel-ts/content/ContentStore"
import * as DistributionError from "@spegel-ts/oci/DistributionError"
import * as DistributionRequest from "@spegel-ts/oci/DistributionRequest"
import { Router } from "@spegel-ts/router/Router"
import { type BodyInterrupted, clientGone } from "@spegel-ts/transfer/BodyInterrupted"
import type { PeerTransport } from "@spegel-ts/transfer/PeerTransport"
import { Transfer } from "@spegel-ts/transfer/Transfer"
import {
  Clock,
  Context,
  Duration,
  Effect,
  Layer,
  LogLevel,
  Option,
  type Redacted,
  References,
  Result,
  Stream
} from "effect"
import type { IncomingMessage, ServerResponse } from "node:http"
import type { Socket } from "node:net"
import { type Answer, interrupted, sendError, sendJson } from "./Answer.ts"
import * as ContentId from "./ContentId.ts"
import type { Handler } from "./HttpListener.ts"
import * as BasicAuth from "./internal/serve/BasicAuth.ts"
import { BodyMemory, initialiseMetrics } from "./internal/serve/BodyMemory.ts"
import { reserveOf } from "./internal/serve/BodyReserve.ts"
import * as ContentAnswer from "./internal/serve/ContentAnswer.ts"
import * as LocalContent from "./internal/serve/LocalContent.ts"
import * as SocketQueues from "./internal/serve/SocketQueues.ts"
import { TurnAnswers } from "./internal/serve/TurnAnswers.ts"
import { type PullEvent, PullLog, PullRecord } from "./PullLog.ts"
import * as PullSpans from "./PullSpans.ts"
import * as RegistryMetrics from "./RegistryMetrics.ts"
import * as ResolvePolicy from "./ResolvePolicy.ts"

export interface RegistryOptions extends ContentAnswer.ContentOptions {
  /** Asked of every client of `/v2/` where given. */
  readonly basicAuth: Option.Option<{ readonly username: string; readonly password: Redacted.Redacted }>
  /** Hosts of registries that are known to be mirrored; others may be too. Their metrics exist from the start. */
  readonly mirroredRegistries: ReadonlyArray<string>
  /** Bytes that all bodies on their way to clients may have together, buffers of sockets included. */
  readonly maxBodyMemory: number
}

/** What Spegel does, and time limits that keep a pull from waiting longer than a user notices. */
export const defaults: RegistryOptions = {
  ...ResolvePolicy.defaults,
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

const probeOf = ({ url = "" }: IncomingMessage): "/livez" | "/readyz" | undefined => {
  const path = url.split("?", 1)[0]
  return path === "/livez" || path === "/readyz" ? path : undefined
}

/** Whether a request asks how the node is: it is answered however busy the node is. */
export const isProbe = (request: IncomingMessage): boolean => probeOf(request) !== undefined

type AnswerError = BodyInterrupted | DistributionError.DistributionError | StoreUnavailable

export class Registry extends Context.Service<Registry, {
  /** Answers one request; every error is an OCI error body. */
  readonly handler: Handler
  /** From now on `/readyz` answers 503, so that nobody new is sent here; all else is answered as before. */
  readonly retire: Effect.Effect<void>
}>()("@spegel-ts/registry/Registry") {
  static readonly layer = (
    options: RegistryOptions
  ): Layer.Layer<Registry, never, ContentStore | Router | PeerTransport | PullLog | Transfer> =>
    Layer.effect(Registry, Effect.map(make(options), Registry.of))
}

const make = Effect.fn("Registry.make")(function*(options: RegistryOptions) {
  const store = yield* ContentStore
  const router = yield* Router
  const ledger = yield* PullLog
  yield* RegistryMetrics.initialise(options.mirroredRegistries)
  // Of these images more may be asked for. Where the store is away, their registries are known when they are.
  yield* store.names.pipe(
    Stream.runForEach(({ reference }) => RegistryMetrics.initialise([reference.registry])),
    Effect.ignore,
    Effect.forkScoped
  )
  const local = yield* LocalContent.make
  yield* initialiseMetrics
  const { plane } = yield* Transfer
  const memory = yield* Effect.acquireRelease(
    Effect.sync(() =>
      new BodyMemory({
        budget: options.maxBodyMemory,
        maxUnsent: SocketQueues.maxUnsent(),
        queues: SocketQueues.read,
        reserve: () => reserveOf(Effect.runSync(plane).name)
      })
    ),
    (memory) => Effect.sync(() => memory.close())
  )
  const content = yield* ContentAnswer.make(options, memory)

  const tagsList = Effect.fnUntraced(function*(
    request: Extract<DistributionRequest.DistributionRequest, { readonly _tag: "TagsList" }>,
    response: ServerResponse
  ) {
    const all = yield* local.tags(request)
    const after = Option.match(request.last, {
      onNone: () => all,
      onSome: (last) => all.filter((tag) => tag > last)
    })
    const page = Option.match(request.n, { onNone: () => after, onSome: (n) => after.slice(0, n) })
    const last = page.at(-1)
    if (last !== undefined && page.length < after.length) {
      const next = DistributionRequest.print({ ...request, last: Option.some(last) }).url
      response.setHeader("link", `<${next}>; rel="next"`)
    }
    return yield* sendJson(response, 200, JSON.stringify({ name: request.repository, tags: page }))
  })

  const answerRequest = Effect.fnUntraced(function*(
    request: DistributionRequest.DistributionRequest,
    response: ServerResponse,
    record: PullRecord
  ) {
    switch (request._tag) {
      case "Ping":
        return yield* sendJson(response, 200, "{}")
      case "TagsList":
        return yield* tagsList(request, response)
      case "Referrers":
        return yield* DistributionError.nameUnknown("spegel-ts: referrers are left to the upstream registry")
      case "Blob":
      case "Manifest":
        return yield* content.answer(request, response, record)
    }
  })

  let retired = false
  const probe = Effect.fnUntraced(function*(path: "/livez" | "/readyz", response: ServerResponse) {
    if (path === "/livez") return yield* sendJson(response, 200, "{}")
    if (retired) return yield* DistributionError.unavailable("the mirror is stopping")
    if (!(yield* router.ready)) {
      const standing = yield* router.standing
      return yield* DistributionError.unavailable(
        `the router is looking for peers${standing._tag === "Joining" ? `: ${standing.reason}` : ""}`
      )
    }
    yield* store.names.pipe(Stream.take(1), Stream.runDrain)
    return yield* sendJson(response, 200, "{}")
  })

  const authorise = Option.match(options.basicAuth, {
    onNone: () => () => true,
    onSome: (credentials) => BasicAuth.verifier(credentials)
  })

  const parse = (request: IncomingMessage) =>
    probeOf(request) ??
      DistributionRequest.parse({ method: request.method ?? "", url: request.url ?? "", headers: request.headers })

  const clock = yield* Clock.Clock
  const context = yield* Effect.context()

  const countServed = (
    { mirrored }: ContentId.ContentRequest,
    record: PullRecord,
    { source, status }: Answer,
    bytes: number
  ): void => {
    if (status >= 400) return
    const byPeer = record.source !== undefined || (source !== "local" && source !== "none")
    RegistryMetrics.servedUnsafe({
      source: byPeer ? "peer" : "local",
      client: mirrored ? "peer" : "node",
      bytes,
      relayed: record.source === undefined ? 0 : record.bytesTaken
    }, context)
  }

  const answer = (parsed: ReturnType<typeof parse>, request: IncomingMessage, response: ServerResponse) =>
    Effect.clockWith((clock) => {
      const started = MonotonicTime.millisUnsafe(clock)
      const record = new PullRecord()
      const handlerName: RegistryMetrics.RequestHandler = parsed === "/livez"
        ? "livez"
        : parsed === "/readyz"
        ? "readyz"
        : Result.isSuccess(parsed)
        ? handlerOf(parsed.success)
        : "invalid"
      const method = request.method ?? ""

      const finished = (answer: Answer) => {
        const { bytes, status } = answer
        const ended = MonotonicTime.millisUnsafe(clock)
        const millis = ended - started
        const sent = method === "HEAD" ? 0 : status === 0 ? record.bytesTaken : bytes
        const counted = Effect.andThen(
          PullSpans.answered(answer, request, response),
          Effect.sync(() =>
            RegistryMetrics.answeredUnsafe({ handler: handlerName, method, status, bytes: sent, millis }, context)
          )
        )
        if (typeof parsed === "string" || Result.isFailure(parsed)) return counted
        const content = parsed.success
        if (content._tag !== "Blob" && content._tag !== "Manifest") return counted
        const event = eventOf(content, record, answer, { time: clock.currentTimeMillisUnsafe(), started, ended })
        const log = Effect.suspend(() => {
          // A line has a time of its own.
          const { time, ...facts } = event
          return Effect.logDebug("request").pipe(
            Effect.annotateLogs({
              ...facts,
              began: new Date(time).toISOString(),
              url: request.url ?? "",
              attempts: record.failures.join("; ")
            })
          )
        })
        return counted.pipe(
          Effect.andThen(PullSpans.pulled(event, content.mirrored)),
          Effect.andThen(Effect.sync(() => countServed(content, record, answer, sent))),
          Effect.andThen(ledger.record(event)),
          Effect.andThen(Effect.when(log, LogLevel.isEnabled("Debug"))),
          Effect.asVoid
        )
      }

      const authorised = typeof parsed === "string" || authorise(request.headers.authorization)
      if (authorised && typeof parsed !== "string" && Result.isSuccess(parsed)) {
        const wanted = parsed.success
        const answer = wanted._tag === "Blob" || wanted._tag === "Manifest"
          ? content.fromMemory(wanted, response, record, started)
          : undefined
        if (answer !== undefined) return Effect.andThen(PullSpans.heldInMemory, finished(answer))
      }
      const answering: Effect.Effect<Answer, AnswerError> = typeof parsed === "string"
        ? probe(parsed, response)
        : !authorised
        ? Effect.suspend(() => {
          response.setHeader("www-authenticate", BasicAuth.challenge)
          return Effect.fail(
            DistributionError.unauthorized("spegel-ts: this mirror asks for a user name and a password")
          )
        })
        : Effect.flatMap(Effect.fromResult(parsed), (parsed) => answerRequest(parsed, response, record))

      return answering.pipe(
        Effect.catchTag(
          "StoreUnavailable",
          ({ message }) => Effect.fail(DistributionError.unavailable(`spegel-ts: ${message}`))
        ),
        Effect.catchDefect((defect) =>
          Effect.andThen(
            Effect.logError("a request failed unexpectedly", defect),
            Effect.fail(DistributionError.unavailable("spegel-ts: unexpected failure; see the mirror's log"))
          )
        ),
        Effect.catchTag("DistributionError", (error) => sendError(response, error)),
        // The client has gone: there is nobody to tell.
        Effect.catchTag("BodyInterrupted", ({ message }) => Effect.succeed(interrupted(response, message))),
        RegistryMetrics.counted(handlerName),
        Effect.onInterrupt(() => finished(interrupted(response, clientGone))),
        Effect.flatMap(finished)
      )
    })
  // Who traces requests or logs each of them sees all of them.
  const watched = (yield* References.TracerEnabled) || (yield* LogLevel.isEnabled("Debug"))

  const turn = new TurnAnswers()

  /** Answers without a fiber what was answered a moment ago: in a busy moment most requests are such. */
  const answerAgain = (request: IncomingMessage, response: ServerResponse): boolean => {
    const started = MonotonicTime.millisUnsafe(clock)
    const known = watched ? undefined : content.repeat(request, started)
    if (known === undefined || !authorise(request.headers.authorization)) return false
    const { bytes, headers, request: wanted } = known
    turn.give({ response, headers, bytes })
    const answer: Answer = { status: 200, bytes: bytes.length, source: "local" }
    const event = eventOf(wanted, new PullRecord(), answer, {
      time: clock.currentTimeMillisUnsafe(),
      started,
      ended: started
    })
    RegistryMetrics.answeredUnsafe({ ...event, handler: handlerOf(wanted) }, context)
    RegistryMetrics.servedUnsafe({ source: "local", client: "node", bytes: bytes.length, relayed: 0 }, context)
    ledger.recordUnsafe(event)
    return true
  }

  /** A client that does not read what it has been answered waits with its next request while memory is short. */
  const turnOf = (socket: Socket) =>
    Effect.callback<void>((resume) => memory.whenRoom(socket, smallAnswer, () => resume(Effect.void)))

  const handler: Handler = (request, response) => {
    if (memory.hasRoom(request.socket, smallAnswer)) return answerNow(request, response)
    return Effect.flatMap(turnOf(request.socket), () => answerNow(request, response) ?? Effect.void)
  }

  const answerNow: Handler = (request, response) =>
    answerAgain(request, response)
      ? undefined
      : PullSpans.request(
        Effect.flatMap(
          PullSpans.parse(Effect.sync(() => parse(request))),
          (parsed) => answer(parsed, request, response)
        ),
        request
      )
  return { handler, retire: Effect.sync(() => retired = true) }
})

const handlers = {
  Blob: "blob",
  Manifest: "manifest",
  Ping: "ping",
  Referrers: "referrers",
  TagsList: "tagslist"
} as const satisfies Record<DistributionRequest.DistributionRequest["_tag"], RegistryMetrics.RequestHandler>

/** What metrics call an endpoint. */
const handlerOf = (request: DistributionRequest.DistributionRequest): RegistryMetrics.RequestHandler =>
  handlers[request._tag]

/** What an answer without a body of its own memory takes, in bytes. */
const smallAnswer = 4096

interface Times {
  /** Milliseconds since the epoch at the end of the request. */
  readonly time: number
  /** The request's beginning and end, as `MonotonicTime` has them. */
  readonly started: number
  readonly ended: number
}

/** What a request for content came to. */
const eventOf = (
  request: ContentId.ContentRequest,
  record: PullRecord,
  { bytes, reason = "", source, status }: Answer,
  { ended, started, time }: Times
): PullEvent => {
  const registry = Option.getOrElse(request.namespace, () => "")
  return {
    time: time - (ended - started),
    method: request.method,
    mirrored: request.mirrored,
    registry,
    content: ContentId.print(ContentId.of(request, {
      registry,
      repository: request.repository,
      ...(request._tag === "Manifest" && request.reference._tag === "Tag" ? { tag: request.reference.tag } : {})
    })),
    range: request.range,
    source: record.source ?? source,
    status,
    bytes,
    firstByteMillis: (record.headTime ?? ended) - started,
    millis: ended - started,
    peersSeen: record.peersSeen,
    attempts: record.attempts,
    peersFailed: record.peersFailed,
    reason
  }
}
