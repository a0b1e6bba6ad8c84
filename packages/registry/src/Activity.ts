/** What a mirror is doing at this moment, for people who look at it. No decision is taken by it. All durations are in milliseconds. */
import type { Digest } from "@spegel-ts/oci/Digest"
import type { Attempt } from "./PullLog.ts"

/** A request for content that is being answered. */
export interface RunningRequest {
  readonly method: "GET" | "HEAD"
  /** Whether a peer asks, on behalf of its own client. */
  readonly mirrored: boolean
  /** Whether this node's own containerd asks. */
  readonly own: boolean
  /** The IP address of the client. */
  readonly client: string
  /** The id of the node that asks, if it says so, as one does that takes downloads in progress. */
  readonly asker: string | undefined
  /** `registry/repository`, or the repository alone if the client does not name the registry. */
  readonly image: string
  /** The digest, or the tag, that is asked for. */
  readonly content: string
  /** The `Range` header. */
  readonly range: string | undefined
  /** How long it has been running. */
  readonly millis: number
  /** The size of the body in bytes; undefined before the head of the answer is ready. */
  readonly size: number | undefined
  /** The bytes of the body that the client has taken. */
  readonly sent: number
  /** The id of the peer that sends the bytes now; undefined if no peer does. */
  readonly source: string | undefined
  /** The id of the node whose download is being waited for; undefined if none is. */
  readonly waitingFor: string | undefined
  /** The peers asked so far. */
  readonly attempts: ReadonlyArray<Attempt>
}

/** A blob that this node's containerd is downloading. */
export interface RunningDownload {
  readonly digest: Digest
  /** `registry/repository`; empty if the download began before this mirror did, or did not ask it. */
  readonly image: string
  /** Sizes in bytes. */
  readonly size: number
  readonly written: number
  /**
   * Where its bytes come from. `stalled`: none have come for much longer than before. `unknown`: the mirror does not follow it, as where
   * downloads are not shared.
   */
  readonly origin: "upstream" | "peers" | "stalled" | "unknown"
  /** How long ago the mirror last answered a request for it; undefined if it does not follow it. */
  readonly millis: number | undefined
  /** The ids of the nodes that take it from here as it grows. */
  readonly followers: ReadonlyArray<string>
}

/** A registry whose peers kept requests waiting: its requests give peers little time. */
export interface OpenCircuit {
  readonly registry: string
  /** How long until a request tries with the usual time; 0 if the next one does. */
  readonly millis: number
}

/** A peer that is asked after others, or not at all. */
export interface PausedPeer {
  readonly id: string
  /** What it did, in words that follow "it". */
  readonly reason: string
  /** For how much longer; `Infinity` until it is forgotten. */
  readonly millis: number
}

/** All of it, each list bounded. */
export interface Activity {
  readonly requests: ReadonlyArray<RunningRequest>
  readonly downloads: ReadonlyArray<RunningDownload>
  readonly circuits: ReadonlyArray<OpenCircuit>
  readonly paused: ReadonlyArray<PausedPeer>
}

/** Of each list, no more is told. */
export const maxListed = 200
