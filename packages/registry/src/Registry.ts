/**
 * The HTTP face of the mirror: the pull part of the OCI distribution API (`/v2/`), `/livez` and `/readyz`.
 *
 * Content comes from this node if it has it, else from a peer, else the answer is 404 with an OCI error body that says
 * why, upon which containerd asks the next host of its hosts.toml, upstream at last. Never a 5xx for missing content.
 */
import { type ContentNotFound, ContentStore, type StoreUnavailable } from "@spegel-ts/content/ContentStore"
import * as ByteRange from "@spegel-ts/oci/ByteRange"
import type { Descriptor } from "@spegel-ts/oci/Descriptor"
import * as DistributionError from "@spegel-ts/oci/DistributionError"
import * as DistributionRequest from "@spegel-ts/oci/DistributionRequest"
import type { Reference } from "@spegel-ts/oci/Reference"
import type { RegistryFilter } from "@spegel-ts/oci/RegistryFilter"
import { Router } from "@spegel-ts/router/Router"
import { Clock, Context, Duration, Effect, Layer, Option, type Redacted, Result, Stream } from "effect"
import type { IncomingMessage, ServerResponse } from "node:http"
import * as BasicAuth from "./BasicAuth.ts"
import { type BodyInterrupted, clientSink, finish, sendFile } from "./BlobBody.ts"
import type { Handler } from "./HttpListener.ts"
import * as LocalContent from "./LocalContent.ts"
import * as Mirror from "./Mirror.ts"
import type { PeerTransport } from "./PeerTransport.ts"
import { PullLedger } from "./PullLedger.ts"
import * as RegistryMetrics from "./RegistryMetrics.ts"
import * as UploadAdmission from "./UploadAdmission.ts"

export interface RegistryOptions extends Mirror.MirrorOptions, UploadAdmission.UploadLimits {
  /** Whether peers are asked for tags; digests they are asked for always. */
  readonly resolveTags: boolean
  /** Images that the mirror handles; others it leaves to upstream. */
  readonly filter: RegistryFilter
  /** Asked of every client of `/v2/` where given. */
  readonly basicAuth: Option.Option<{ readonly username: string; readonly password: Redacted.Redacted }>
}

/** What Spegel does, and time limits that keep a pull from waiting longer than a user notices. */
export const defaults: RegistryOptions = {
  resolveTimeout: Duration.millis(20),
  resolveRetries: 3,
  firstByteTimeout: Duration.seconds(1),
  maxBufferedSize: 4 * 1024 * 1024,
  resolveTags: true,
  filter: () => true,
  basicAuth: Option.none(),
  maxUploads: 128,
  maxUploadsPerPeer: 16
}

/** How a request was answered. */
interface Answer {
  readonly status: number
  readonly bytes: number
  /** `local`, a peer's id, or `none`. */
  readonly source: string
  readonly reasons: ReadonlyArray<string>
}

type AnswerError = BodyInterrupted | ContentNotFound | DistributionError.DistributionError | StoreUnavailable

export class Registry extends Context.Service<Registry, {
  /** Answers one request; every error is an OCI error body. */
  readonly handler: Handler
}>()("@spegel-ts/registry/Registry") {
  static readonly layer = (
    options: RegistryOptions
  ): Layer.Layer<Registry, never, ContentStore | Router | PeerTransport | PullLedger> =>
    Layer.effect(Registry, Effect.map(make(options), (handler) => Registry.of({ handler })))
}

const json = "application/json"
const apiVersion = { "docker-distribution-api-version": "registry/2.0" }

const make = Effect.fn("Registry.make")(function*(options: RegistryOptions) {
  const store = yield* ContentStore
  const router = yield* Router
  const ledger = yield* PullLedger
  yield* RegistryMetrics.initialise
  const local = yield* LocalContent.make
  const mirror = yield* Mirror.make(options)
  const uploads = UploadAdmission.make(options)

  const unavailable = (error: StoreUnavailable) => DistributionError.unavailable(`spegel-ts: ${error.message}`)

  /** Sends what this node holds. */
  const serveLocal = Effect.fn("Registry.serveLocal")(function*(
    request: Mirror.ContentRequest,
    descriptor: Descriptor,
    response: ServerResponse
  ) {
    const { digest, mediaType, size } = descriptor
    const headers = {
      "content-type": mediaType,
      "docker-content-digest": digest,
      "accept-ranges": "bytes",
      ...apiVersion
    }
    const parsed = ByteRange.parse(request.range, size)
    if (Result.isFailure(parsed)) {
      response.setHeader("content-range", ByteRange.unsatisfiedRange(size))
      return yield* DistributionError.rangeInvalid(`spegel-ts: ${parsed.failure.message} of ${digest}`)
    }
    const range = Option.getOrElse(parsed.success, () => ({ start: 0, end: size }))
    const status = Option.isSome(parsed.success) ? 206 : 200
    const bytes = range.end - range.start
    const answer = { status, bytes, source: "local", reasons: [] } satisfies Answer
    if (request.mirrored && request.method === "GET") yield* uploads.admit(response)
    const source = request.method === "HEAD" ? undefined : yield* store.open(digest)
    response.writeHead(status, {
      ...headers,
      "content-length": bytes,
      ...(status === 206 ? { "content-range": ByteRange.contentRange(range, size) } : {})
    })
    if (source?._tag === "File") {
      yield* sendFile(source.handle, range, response)
    } else {
      if (source !== undefined) response.write(source.bytes.subarray(range.start, range.end))
      yield* finish(response)
    }
    return answer
  }, Effect.scoped)

  /** Sends what a peer holds; the response's head goes out with its first byte. */
  const serveMirrored = Effect.fn("Registry.serveMirrored")(function*(
    request: Mirror.ContentRequest,
    name: Reference,
    response: ServerResponse
  ) {
    const { body, digest, mediaType, peer, size, start, tried } = yield* mirror.fetch(request, name)
    const partial = start > 0
    const bytes = size - start
    response.writeHead(partial ? 206 : 200, {
      "content-type": mediaType,
      "content-length": bytes,
      "docker-content-digest": digest,
      ...apiVersion,
      ...(partial ? { "content-range": ByteRange.contentRange({ start, end: size }, size) } : {})
    })
    const answer = { status: partial ? 206 : 200, bytes, source: peer.id, reasons: tried } satisfies Answer
    if (request.method === "HEAD") {
      yield* finish(response)
      return answer
    }
    if (body._tag === "Verified") {
      response.write(body.bytes)
      yield* finish(response)
      return answer
    }
    return yield* body.relay(clientSink(response)).pipe(
      Effect.andThen(finish(response)),
      Effect.as(answer),
      Effect.catch((error) =>
        Effect.gen(function*() {
          // An early FIN makes containerd go on at the byte reached, with the next host; an RST would fail its pull.
          response.destroy()
          yield* Effect.logWarning(`${error.message}: ending the body early, containerd goes on with upstream`)
          return { ...answer, status: 0, reasons: [...tried, error.message] }
        })
      )
    )
  }, Effect.scoped)

  const content = Effect.fn("Registry.content")(function*(
    request: Mirror.ContentRequest,
    response: ServerResponse
  ) {
    const known = LocalContent.complete(request)
    const tag = request._tag === "Manifest" && request.reference._tag === "Tag" ? request.reference.tag : undefined
    const unknown = request._tag === "Blob" ? DistributionError.blobUnknown : DistributionError.manifestUnknown
    const name = Option.map(known, (name) => tag === undefined ? name : { ...name, tag })
    if (Option.exists(name, (name) => !options.filter(name))) {
      return yield* unknown("spegel-ts: this image is left to the upstream registry (mirrored registries, filters)")
    }

    const digest = request._tag === "Blob"
      ? Option.some(request.digest)
      : request.reference._tag === "Digest"
      ? Option.some(request.reference.digest)
      : yield* LocalContent.ifHeld(local.resolve(request, request.reference.tag))
    const held = Option.isSome(digest) ? yield* local.describe(digest.value) : Option.none()
    if (Option.isSome(held)) {
      // Between the two it may have been collected: then it is as if it had not been held.
      const served = yield* LocalContent.ifHeld(serveLocal(request, held.value, response))
      if (Option.isSome(served)) return served.value
    }

    const wanted = Option.getOrElse(digest, () => tag ?? "")
    if (request.mirrored) return yield* unknown(`spegel-ts: this node does not hold ${wanted}`)
    if (Option.isNone(request.namespace) || Option.isNone(name)) {
      return yield* unknown(`spegel-ts: this node does not hold ${wanted}; without ?ns= no peer is asked`)
    }
    if (tag !== undefined && !options.resolveTags) {
      return yield* unknown("spegel-ts: tags are left to the upstream registry (--resolve-tags)")
    }
    const registry = name.value.registry
    return yield* serveMirrored(request, name.value, response).pipe(
      Effect.tap(() => countMirrored(registry, true)),
      Effect.catchTags({
        PeerNotFound: (error) =>
          Effect.andThen(
            countMirrored(registry, false),
            unknown(`spegel-ts: ${error.message}; containerd continues with the upstream registry`)
          ),
        ResolveTimeout: (error) =>
          Effect.andThen(
            countMirrored(registry, false),
            unknown(`spegel-ts: ${error.message}; containerd continues with the upstream registry`)
          )
      })
    )
  })

  const countMirrored = (registry: string, hit: boolean) =>
    Effect.flatMap(Clock.currentTimeMillis, (now) => RegistryMetrics.mirrored(registry, hit, now))

  const sendJson = Effect.fnUntraced(function*(response: ServerResponse, status: number, body: string) {
    response.writeHead(status, { "content-type": json, "content-length": Buffer.byteLength(body), ...apiVersion })
    response.write(body)
    yield* finish(response)
    return { status, bytes: Buffer.byteLength(body), source: "none", reasons: [] } satisfies Answer
  })

  const tagsList = Effect.fn("Registry.tagsList")(function*(
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

  const answerRequest = Effect.fn("Registry.request")(function*(
    request: DistributionRequest.DistributionRequest,
    response: ServerResponse
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
        return yield* content(request, response)
    }
  })

  const probe = Effect.fnUntraced(function*(path: "/livez" | "/readyz", response: ServerResponse) {
    if (path === "/livez") return yield* sendJson(response, 200, "{}")
    if (!(yield* router.ready)) {
      return yield* DistributionError.unavailable("the router has not asked a bootstrap peer yet")
    }
    yield* store.names.pipe(Stream.take(1), Stream.runDrain)
    return yield* sendJson(response, 200, "{}")
  })

  const authorise = Option.match(options.basicAuth, {
    onNone: () => () => true,
    onSome: (credentials) => BasicAuth.verifier(credentials)
  })

  const parse = (request: IncomingMessage) =>
    DistributionRequest.parse({ method: request.method ?? "", url: request.url ?? "", headers: request.headers })

  /** Every error becomes its OCI body here, unless the head is out already. */
  const failed = (response: ServerResponse) => (error: DistributionError.DistributionError) =>
    Effect.suspend(() => {
      if (response.headersSent) {
        response.destroy()
        return Effect.succeed<Answer>({ status: 0, bytes: 0, source: "none", reasons: [error.message] })
      }
      return sendJson(response, error.status, error.body()).pipe(
        Effect.map((answer): Answer => ({ ...answer, reasons: [error.message] }))
      )
    })

  const handler: Handler = Effect.fnUntraced(function*(request, response) {
    const started = yield* Clock.currentTimeMillis
    const path = (request.url ?? "").split("?", 1)[0]
    const parsed = path === "/livez" || path === "/readyz" ? path : parse(request)
    const handlerName = typeof parsed === "string"
      ? parsed.slice(1)
      : Result.isSuccess(parsed)
      ? parsed.success._tag.toLowerCase()
      : "invalid"
    const answering: Effect.Effect<Answer, AnswerError> = typeof parsed === "string"
      ? probe(parsed, response)
      : !authorise(request.headers.authorization)
      ? Effect.suspend(() => {
        response.setHeader("www-authenticate", BasicAuth.challenge)
        return Effect.fail(DistributionError.unauthorized("spegel-ts: this mirror asks for a user name and a password"))
      })
      : Effect.flatMap(Effect.fromResult(parsed), (parsed) => answerRequest(parsed, response))

    const answer = yield* answering.pipe(
      Effect.catchTags({
        DistributionError: failed(response),
        StoreUnavailable: (error) => failed(response)(unavailable(error)),
        ContentNotFound: (error) => failed(response)(DistributionError.nameUnknown(`spegel-ts: ${error.message}`))
      }),
      // The client has gone: there is nobody to tell.
      Effect.catchTag("BodyInterrupted", (error) => {
        response.destroy()
        return Effect.succeed<Answer>({ status: 0, bytes: 0, source: "none", reasons: [error.message] })
      }),
      Effect.catchDefect((defect) =>
        Effect.andThen(
          Effect.logError("a request failed unexpectedly", defect),
          failed(response)(DistributionError.unavailable("spegel-ts: unexpected failure; see the mirror's log"))
        ).pipe(Effect.orElseSucceed((): Answer => ({ status: 0, bytes: 0, source: "none", reasons: [] })))
      ),
      RegistryMetrics.counted(handlerName)
    )

    const millis = (yield* Clock.currentTimeMillis) - started
    const method = request.method ?? ""
    yield* RegistryMetrics.answered({
      handler: handlerName,
      method: handlerName === "invalid" ? "other" : method,
      status: answer.status,
      bytes: answer.bytes,
      millis
    })
    if (typeof parsed === "string" || Result.isFailure(parsed)) return
    const content = parsed.success
    if (content._tag !== "Blob" && content._tag !== "Manifest") return
    const registry = Option.getOrElse(content.namespace, () => "")
    yield* ledger.record({
      time: started,
      method: content.method,
      registry,
      content: Mirror.contentOf(content, {
        registry,
        repository: content.repository,
        ...(content._tag === "Manifest" && content.reference._tag === "Tag" ? { tag: content.reference.tag } : {})
      }),
      source: answer.source,
      status: answer.status,
      bytes: answer.bytes,
      millis,
      reasons: answer.reasons
    })
    yield* Effect.logDebug("request").pipe(
      Effect.annotateLogs({ method, url: request.url ?? "", millis, ...answer, reasons: answer.reasons.join("; ") })
    )
  })
  return handler
})
