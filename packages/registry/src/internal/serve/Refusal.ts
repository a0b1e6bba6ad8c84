/**
 * The reasons why a request gets no content, and the one place that puts them into words: containerd shows the error of its first
 * host, this mirror, to the user. Content that neither this node nor a peer can serve is a 404 and never a 5xx: then
 * containerd asks the next host of its hosts.toml.
 */
import * as ByteRange from "@spegel-ts/oci/ByteRange"
import type * as Digest from "@spegel-ts/oci/Digest"
import * as DistributionError from "@spegel-ts/oci/DistributionError"
import { Data } from "effect"
import type { OutgoingHttpHeaders } from "node:http"
import type { ContentRequest } from "../../ContentId.ts"
import type { MirrorError } from "../../MirrorError.ts"
import { timeHeader } from "../auth/AnswerProof.ts"
import * as BasicAuth from "../auth/BasicAuth.ts"
import { keysHeader } from "../auth/RequestProof.ts"
import * as Lease from "../flight/Lease.ts"
import * as DownloadState from "../share/DownloadState.ts"

/** Refusals of any request. */
type AnyRefusal = Data.TaggedEnum<{
  /** The request is not one of the API; the error says what is wrong with it. */
  Invalid: { readonly error: DistributionError.DistributionError }
  /** A tool asked how to log in, without credentials or with wrong ones. */
  Unauthorized: { readonly tokens: boolean }
  /** Referrers are not mirrored. */
  Referrers: {}
  /** The node holds nothing of this repository. */
  RepositoryNotHeld: { readonly repository: string }
  /** Several registries hold this repository, and the client did not say which one it means. */
  Ambiguous: { readonly repository: string; readonly registries: ReadonlyArray<string> }
  /** The node is stopping. */
  Stopping: {}
  /** The router has met no other node yet. */
  Joining: { readonly reason: string | undefined }
  /** The content store cannot be asked. */
  StoreUnavailable: { readonly message: string }
  /** A bug, which was logged. */
  Defect: {}
  /** This node holds as many connections as it may. */
  TooManyConnections: { readonly byPeer: boolean }
}>

/** Refusals of whoever may not ask this mirror for anything. */
type AccessRefusal = Data.TaggedEnum<{
  /** The client did not give the password, and this mirror knows no tokens. */
  NoPassword: {}
  /** The client gave no credentials, or wrong ones. */
  ClientUnproved: { readonly credentials: "none" | "wrong" }
  /** A peer gave no proof of the cluster key. */
  PeerUnproved: {}
  /** A peer's proof is no proof of this request. */
  PeerProofWrong: {}
  /** A peer's proof is made with a key that this node does not have. */
  PeerKeyUnknown: { readonly accepted: ReadonlyArray<string> }
  /** The time of a peer's request is not this node's; `time` is, in milliseconds since the epoch. */
  PeerClockDiffers: { readonly time: number }
}>

/** Refusals of requests for content. */
type ContentRefusal = Data.TaggedEnum<{
  /** A filter leaves this image to upstream. */
  Filtered: {}
  /** The canary of `spegel doctor` is asked for by somebody else than this node's own containerd. */
  CanaryOfOther: {}
  /** This node's copy is not what its digest says. */
  Damaged: { readonly digest: Digest.Digest }
  /** A peer asked for what this node does not hold. */
  NotHeld: { readonly wanted: string }
  /** A peer asked for more of a download than this node has by now. */
  StillDownloading: { readonly digest: Digest.Digest; readonly state: DownloadState.DownloadState }
  /** A peer asked whether to download content from upstream. */
  Leased: { readonly digest: Digest.Digest; readonly decision: Lease.Decision }
  /** Without `?ns=` the registry is not known, and no peer can be asked. */
  NotHeldNoNamespace: { readonly wanted: string }
  /** Without `?ns=`, no registry is known to hold this tag. */
  TagNotHeld: { readonly repository: string; readonly tag: string }
  /** Tags are left to upstream. */
  TagsNotMirrored: {}
  /** No peer could serve it. */
  NoPeer: { readonly error: MirrorError }
  /** The range lies beyond the end. */
  RangeOutside: { readonly error: ByteRange.RangeNotSatisfiable; readonly content: string }
  /** The memory for bodies is in use. */
  NoMemory: {}
  /** This node sends as many bodies to peers, or to this peer, as it may. */
  TooManyUploads: { readonly bound: "all" | "peer"; readonly max: number }
}>

export type Refusal = AnyRefusal | AccessRefusal | ContentRefusal
export const Refusal = Data.taggedEnum<Refusal>()

/** A step of a request ends it with this. */
export class Refused extends Data.TaggedError("Refused")<{ readonly refusal: Refusal }> {}

/** The error that the client gets. */
export interface Told {
  readonly error: DistributionError.DistributionError
  readonly headers?: OutgoingHttpHeaders
}

/** When a peer that was refused may ask again, in seconds. */
const retryAfter: OutgoingHttpHeaders = { "retry-after": "1" }

const toUpstream = "containerd continues with the upstream registry"

type Unknown = (message: string) => Told

const unavailable = (message: string): Told => ({ error: DistributionError.unavailable(message) })
const nameUnknown = (message: string): Told => ({ error: DistributionError.nameUnknown(message) })

/** The words for a refusal. `request` is undefined if the request was not for content. */
export const tell = (refusal: Refusal, request: ContentRequest | undefined): Told => {
  switch (refusal._tag) {
    case "Invalid":
      return { error: refusal.error }
    case "Unauthorized":
      return {
        error: DistributionError.unauthorized(
          `spegel-ts: this mirror asks for a user name and a password${
            refusal.tokens ? "; a node's token is right as the password of any user" : ""
          }`
        ),
        headers: { "www-authenticate": BasicAuth.challenge }
      }
    case "Referrers":
      return nameUnknown("spegel-ts: referrers are left to the upstream registry")
    case "RepositoryNotHeld":
      return nameUnknown(`${refusal.repository} is not held by this node`)
    case "Ambiguous": {
      const registries = refusal.registries.join(" and ")
      return nameUnknown(
        `${registries} both hold ${refusal.repository}: put the registry in front, or give it as ?ns=`
      )
    }
    case "Stopping":
      return unavailable("the mirror is stopping")
    case "Joining":
      return unavailable(`the router is looking for peers${refusal.reason === undefined ? "" : `: ${refusal.reason}`}`)
    case "StoreUnavailable":
      return unavailable(`spegel-ts: ${refusal.message}`)
    case "Defect":
      return unavailable("spegel-ts: unexpected failure; see the mirror's log")
    case "TooManyConnections": {
      const message = "spegel-ts: this node holds as many connections as it may; ask another"
      // Only a 404 makes containerd ask upstream.
      return refusal.byPeer ? unavailable(message) : nameUnknown(message)
    }
    default:
      return tellContent(
        refusal,
        request?.mirrored === true,
        unknownOf(request)
      )
  }
}

const unknownOf = (request: ContentRequest | undefined): Unknown => {
  switch (request?._tag) {
    case "Blob":
      return (message) => ({ error: DistributionError.blobUnknown(message) })
    case "Manifest":
      return (message) => ({ error: DistributionError.manifestUnknown(message) })
    case undefined:
      return nameUnknown
  }
}

/** `unknown` makes a 404. */
const tellContent = (refusal: ContentRefusal | AccessRefusal, toPeer: boolean, unknown: Unknown): Told => {
  switch (refusal._tag) {
    case "Filtered":
      return unknown("spegel-ts: this image is left to the upstream registry (mirrored registries, filters)")
    case "CanaryOfOther":
      return unknown(
        "spegel-ts: a canary is served to the mirror's own node, which this request is not known to come from: run spegel " +
          "configuration on this node again, with the cluster key and the mirror's --node-name"
      )
    case "Damaged":
      return unknown(`spegel-ts: this node's copy of ${refusal.digest} is damaged`)
    case "NotHeld":
      return unknown(`spegel-ts: this node does not hold ${refusal.wanted}`)
    case "StillDownloading":
      return {
        ...unknown(`spegel-ts: this node has ${refusal.state.written} bytes of ${refusal.digest} by now`),
        headers: { [DownloadState.inProgressHeader]: DownloadState.print(refusal.state) }
      }
    case "Leased":
      return {
        ...unknown(
          `spegel-ts: ${refusal.digest} is not held here; ${
            refusal.decision._tag === "Go" ? "it is yours to download" : `${refusal.decision.id} downloads it`
          }`
        ),
        headers: { [Lease.leaseHeader]: Lease.print(refusal.decision) }
      }
    case "NotHeldNoNamespace":
      return unknown(`spegel-ts: this node does not hold ${refusal.wanted}; without ?ns= no peer is asked`)
    case "TagNotHeld":
      return unknown(
        `no registry's ${refusal.repository}:${refusal.tag} is held by this node; without ?ns= only local content is served`
      )
    case "TagsNotMirrored":
      return unknown("spegel-ts: tags are left to the upstream registry")
    case "NoPeer":
      return unknown(`spegel-ts: ${refusal.error.message}; ${toUpstream}`)
    case "RangeOutside":
      return {
        error: DistributionError.rangeInvalid(`spegel-ts: ${refusal.error.message} of ${refusal.content}`),
        headers: { "content-range": ByteRange.unsatisfiedRange(refusal.error.size) }
      }
    case "NoMemory": {
      const reason = "spegel-ts: this node's memory for bodies is in use"
      return toPeer
        ? { ...unavailable(`${reason}: ask another`), headers: retryAfter }
        : unknown(`${reason}; ${toUpstream}`)
    }
    case "TooManyUploads": {
      const sending = `spegel-ts: this node already sends ${refusal.max} bodies`
      const all = refusal.bound === "all"
      return toPeer
        ? {
          ...unavailable(`${sending} to ${all ? "peers" : "this peer"}, its limit: ask another`),
          headers: retryAfter
        }
        : unknown(`${sending} to ${all ? "others" : "this client"}, its limit; ${toUpstream}`)
    }
    default:
      return tellAccess(refusal, unknown)
  }
}

/** As `tellContent`. Nothing is said of what this node holds. */
const tellAccess = (refusal: AccessRefusal, unknown: Unknown): Told => {
  switch (refusal._tag) {
    case "NoPassword":
      return unknown(`spegel-ts: this mirror asks for a user name and a password (see GET /v2/); ${toUpstream}`)
    case "ClientUnproved": {
      const why = refusal.credentials === "none"
        ? "and this request has no token"
        : "and this request's token or password is not right"
      return unknown(
        `spegel-ts: this mirror serves only nodes of its cluster, ${why}: run spegel configuration on this node again, with ` +
          `the cluster key (a tool logs in with a node's token as its password); ${toUpstream}`
      )
    }
    case "PeerUnproved":
      return unknown(
        "spegel-ts: this mirror serves only peers that prove that they have the cluster key: give your mirror the cluster key"
      )
    case "PeerProofWrong":
      return unknown(
        "spegel-ts: the proof of the cluster key is wrong, or made for another mirror; mirrors have to be of versions that go together"
      )
    case "PeerKeyUnknown":
      return {
        ...unknown(
          "spegel-ts: this mirror does not have the cluster key that the request is signed with: give both mirrors the same keys"
        ),
        headers: { [keysHeader]: refusal.accepted.join(" ") }
      }
    case "PeerClockDiffers":
      return {
        ...unknown(
          `spegel-ts: the request's time differs from this mirror's, ${
            new Date(refusal.time).toISOString()
          }, by more than 5 minutes: set the clock of one of them`
        ),
        headers: { [timeHeader]: String(refusal.time) }
      }
  }
}
