/**
 * Answers requests for blobs and manifests: from this node if it holds them, otherwise from a peer, otherwise with a 404
 * (`Refusal`) after which containerd asks the next host of its hosts.toml.
 */
import type { StoreUnavailable } from "@spegel-ts/content/ContentStore"
import type * as Digest from "@spegel-ts/oci/Digest"
import type { Reference } from "@spegel-ts/oci/Reference"
import type { RegistryFilter } from "@spegel-ts/oci/RegistryFilter"
import type { BodyInterrupted } from "@spegel-ts/transfer/BodyInterrupted"
import { Effect, Option } from "effect"
import * as Canary from "../../Canary.ts"
import * as Mirror from "../../Mirror.ts"
import type { MirrorError } from "../../MirrorError.ts"
import * as CanaryAnswer from "../canary/CanaryAnswer.ts"
import type { HotContent } from "../hot/HotContent.ts"
import type { BodyMemory } from "../memory/BodyMemory.ts"
import * as RegistryMetrics from "../observe/RegistryMetrics.ts"
import * as RequestSpans from "../observe/RequestSpans.ts"
import * as OwnDownloads from "../share/OwnDownloads.ts"
import * as Scrubber from "../verify/Scrubber.ts"
import type { Answer } from "./Answer.ts"
import * as ContentExchange from "./ContentExchange.ts"
import * as LocalAnswer from "./LocalAnswer.ts"
import * as LocalContent from "./LocalContent.ts"
import * as MirroredAnswer from "./MirroredAnswer.ts"
import { Refusal, Refused } from "./Refusal.ts"
import type { ContentAsked } from "./RegistryRequest.ts"
import * as SharedAnswer from "./SharedAnswer.ts"
import * as UploadAdmission from "./UploadAdmission.ts"

export interface ContentOptions extends Mirror.MirrorOptions, UploadAdmission.UploadLimits {
  /** Whether peers are asked for tags. They are always asked for digests. */
  readonly resolveTags: boolean
  /** The images that are mirrored; others are left to upstream. */
  readonly filter: RegistryFilter
}

type ContentError = BodyInterrupted | Refused | StoreUnavailable

/** What is going on beside the requests themselves. */
const activityOf = (mirror: Mirror.Mirror, downloads: OwnDownloads.OwnDownloads, shared: SharedAnswer.SharedAnswer) =>
  Effect.all({
    downloads: Effect.map(
      downloads.list,
      (found) => found.map((download) => ({ ...download, followers: shared.followersOf(download.digest) }))
    ),
    circuits: mirror.circuits,
    paused: mirror.paused
  })

interface Shared {
  readonly local: LocalContent.LocalContent
  readonly memory: BodyMemory
  readonly hot: HotContent
}

/** The full name to ask peers by, or why they are not asked. */
const nameForPeers = (
  { resolveTags }: ContentOptions,
  { request }: ContentExchange.ContentExchange,
  digest: Option.Option<Digest.Digest>,
  name: Option.Option<Reference>
): Effect.Effect<Reference, Refused> => {
  const tag = ContentExchange.tagOf(request)
  const wanted = `${Option.getOrElse(digest, () => tag ?? "")}${request._tag === "Manifest" ? " as a manifest" : ""}`
  const refuse = (refusal: Refusal) => Effect.fail(new Refused({ refusal }))
  if (request.mirrored) return refuse(Refusal.NotHeld({ wanted }))
  if (Option.isNone(request.namespace) || Option.isNone(name)) return refuse(Refusal.NotHeldNoNamespace({ wanted }))
  if (tag !== undefined && !resolveTags) return refuse(Refusal.TagsNotMirrored())
  return Effect.succeed(name.value)
}

export const make = Effect.fn("ContentAnswer.make")(function*(
  options: ContentOptions,
  { hot, local, memory }: Shared
) {
  const mirror = yield* Mirror.make(options)
  const downloads = yield* OwnDownloads.make(mirror)
  const scrubber = yield* Scrubber.make
  const uploads = UploadAdmission.make(options)
  const serveLocal = yield* LocalAnswer.make({ hot, memory, uploads })
  const shared = yield* SharedAnswer.make({ mirror, downloads, memory, uploads })
  const serveMirrored = MirroredAnswer.make({ mirror, memory, uploads, downloads })
  const serveCanary = CanaryAnswer.make(memory)

  /** The digest that is asked for, or that the tag points to here; none if this node does not know. */
  const digestOf = ({ request }: ContentExchange.ContentExchange) => {
    const tag = ContentExchange.tagOf(request)
    return tag === undefined
      ? Effect.succeed(Option.fromUndefinedOr(ContentExchange.digestOf(request)))
      : LocalContent.ifHeld(RequestSpans.localLookup(tag)(local.resolve(request, tag)))
  }

  /** A peer gets nothing that is known to be damaged, and has content checked that it suspects. */
  const checkDamage = Effect.fnUntraced(function*(digest: Digest.Digest, suspected: boolean, isProved: boolean) {
    if (suspected) yield* scrubber.suspect(digest, isProved)
    if (yield* scrubber.isDamaged(digest)) return yield* new Refused({ refusal: Refusal.Damaged({ digest }) })
  })

  const askPeers = (exchange: ContentExchange.ContentExchange, name: Reference, userAgent: string) => {
    const count = (hit: boolean) => RegistryMetrics.mirrored(name.registry, hit)
    const { own, request } = exchange
    const digest = ContentExchange.digestOf(request)
    const leave = own && digest !== undefined && request.method === "GET"
      ? downloads.leftToUpstream({
        digest,
        image: `${name.registry}/${name.repository}`,
        isManifest: request._tag === "Manifest"
      })
      : Effect.void
    const noPeer = (error: MirrorError) =>
      count(false).pipe(
        Effect.andThen(leave),
        Effect.andThen(Effect.fail(new Refused({ refusal: Refusal.NoPeer({ error }) })))
      )
    return serveMirrored(exchange, name, userAgent).pipe(
      Effect.tap((answer) => count(answer._tag === "Served")),
      // A client that leaves while a peer serves has what it wants, as containerd when it fetches a layer in parts.
      Effect.onInterrupt(() => exchange.record.source === undefined ? Effect.void : count(true)),
      Effect.catchTag(["PeerNotFound", "ResolveTimeout", "AnswerTimeout", "TagUndecided"], noPeer)
    )
  }

  const answer = Effect.fnUntraced(function*(
    exchange: ContentExchange.ContentExchange,
    asked: ContentAsked
  ): Effect.fn.Return<Answer, ContentError> {
    const name = ContentExchange.nameOf(exchange.request)
    if (Option.exists(name, (name) => !options.filter(name))) return yield* new Refused({ refusal: Refusal.Filtered() })
    if (Canary.isAsked(exchange.request)) return yield* serveCanary(exchange)
    const digest = yield* digestOf(exchange)
    if (Option.isSome(digest)) {
      yield* shared.decide(exchange, digest.value, asked)
      if (exchange.request.mirrored) yield* checkDamage(digest.value, asked.suspected, exchange.proof !== undefined)
      const held = Effect.andThen(shared.hold(exchange, digest.value, asked), serveLocal(exchange, digest.value, name))
      const served = yield* LocalContent.ifHeld(held)
      if (Option.isSome(served)) return served.value
      const part = yield* shared.serve(exchange, digest.value, asked)
      if (Option.isSome(part)) return part.value
    }
    return yield* askPeers(exchange, yield* nameForPeers(options, exchange, digest, name), asked.userAgent)
  })

  return { answer, activity: activityOf(mirror, downloads, shared) }
})
