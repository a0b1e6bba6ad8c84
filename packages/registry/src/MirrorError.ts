/**
 * The errors of a pull from peers. The tag decides the next step: another peer is asked, or the request falls back to upstream.
 */
import {
  type PeerDisconnected,
  PeerRefused,
  type PeerSlow,
  type PeerStalled,
  type PeerUnreachable
} from "@spegel-ts/transfer/PeerError"
import { Data } from "effect"
import type { DownloadState } from "./internal/share/DownloadState.ts"

interface Unresolved {
  /** The digest, or `registry/repository:tag`. */
  readonly content: string
  /** The peers that were tried and what became of them, in words, oldest first. */
  readonly tried: ReadonlyArray<string>
}

interface Late extends Unresolved {
  readonly waitedMillis: number
}

const listed = ({ tried }: Unresolved): string => tried.length === 0 ? "" : ` (${tried.join("; ")})`

/** No peer is known to hold the content, or all that were asked failed: the request falls back to upstream. */
export class PeerNotFound extends Data.TaggedError("PeerNotFound")<Unresolved> {
  override get message() {
    return `${this.tried.length === 0 ? "no peer has" : "no peer could serve"} ${this.content}${listed(this)}`
  }
}

/** No peer was found within the resolve timeout while none was being asked: the request falls back to upstream. */
export class ResolveTimeout extends Data.TaggedError("ResolveTimeout")<Late> {
  override get message() {
    return `no peer with ${this.content} was found in ${this.waitedMillis} ms${listed(this)}`
  }
}

/** A HEAD or a manifest took too long: the request falls back to upstream. */
export class AnswerTimeout extends Data.TaggedError("AnswerTimeout")<Late> {
  override get message() {
    return `no peer gave ${this.content} within ${this.waitedMillis} ms${listed(this)}`
  }
}

/** Peers do not agree on the manifest of a tag, or too few say which one it is: the request falls back to upstream. */
export class TagUndecided extends Data.TaggedError("TagUndecided")<Unresolved & { readonly reason: string }> {
  override get message() {
    return `no peer's word is taken for ${this.content}: ${this.reason}${listed(this)}`
  }
}

/**
 * A peer's bytes are not those of the digest, and the peer is not asked for it again. Another peer is asked, unless some of the
 * bytes were passed on: then the client's download fails.
 */
export class ContentCorrupted extends Data.TaggedError("ContentCorrupted")<{
  readonly peer: string
  readonly content: string
}> {
  override get message() {
    return `${this.peer}: sent wrong bytes for ${this.content}`
  }
}

/**
 * The peer is downloading the content itself, and has not come as far as this node wants. Others are asked, and it may be asked
 * again in a moment.
 */
export class PeerStillDownloading extends Data.TaggedError("PeerStillDownloading")<{
  readonly peer: string
  readonly state: DownloadState
}> {
  override get message() {
    return `${this.peer}: is downloading it, and has ${this.state.written} bytes`
  }
}

/** This node gave up a manifest for lack of memory. Another peer is asked, and nothing is held against this one. */
export class NoMemoryForBody extends Data.TaggedError("NoMemoryForBody")<{
  readonly peer: string
  /** Its size in bytes, as the peer claims. */
  readonly size: number
}> {
  override get message() {
    return `${this.peer}: sends a manifest of ${this.size} bytes, whose memory others need`
  }
}

/** Failures of one peer: another one may serve. */
export type PeerError =
  | PeerUnreachable
  | PeerDisconnected
  | PeerStalled
  | PeerSlow
  | PeerRefused
  | ContentCorrupted
  | NoMemoryForBody
  | PeerStillDownloading

/** Whether a peer does not hold what it was asked for, or not enough of it, and has not failed. */
export const isMiss = (error: unknown): boolean =>
  error instanceof PeerStillDownloading || error instanceof PeerRefused && error.status === 404

/** Why a request falls back to upstream. */
export type MirrorError = PeerNotFound | ResolveTimeout | AnswerTimeout | TagUndecided

/** The error's message without the peer's name. */
export const why = (error: PeerError): string => error.message.slice(error.peer.length + 2)
