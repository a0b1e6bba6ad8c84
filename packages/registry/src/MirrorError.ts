/** Why content did not come from a peer. The tag decides what happens next: another peer, or upstream. */
import type {
  PeerDisconnected,
  PeerRefused,
  PeerSlow,
  PeerStalled,
  PeerUnreachable
} from "@spegel-ts/transfer/PeerError"
import { Data } from "effect"

/** Nobody (more) is known to hold the content: upstream is next. */
export class PeerNotFound extends Data.TaggedError("PeerNotFound")<{
  readonly content: string
  /** What became of the peers that were tried, oldest first. */
  readonly tried: ReadonlyArray<string>
}> {
  override get message() {
    return this.tried.length === 0
      ? `no peer has ${this.content}`
      : `no peer could serve ${this.content} (${this.tried.join("; ")})`
  }
}

/** No peer was found within the resolve timeout: upstream is next. */
export class ResolveTimeout extends Data.TaggedError("ResolveTimeout")<{
  readonly content: string
  readonly waitedMillis: number
  readonly tried: ReadonlyArray<string>
}> {
  override get message() {
    const tried = this.tried.length === 0 ? "" : ` (${this.tried.join("; ")})`
    return `no peer with ${this.content} was found in ${this.waitedMillis} ms${tried}`
  }
}

/** The answer could not be begun in time: upstream is next. */
export class AnswerTimeout extends Data.TaggedError("AnswerTimeout")<{
  readonly content: string
  readonly waitedMillis: number
  readonly tried: ReadonlyArray<string>
}> {
  override get message() {
    const tried = this.tried.length === 0 ? "" : ` (${this.tried.join("; ")})`
    return `no peer gave ${this.content} within ${this.waitedMillis} ms${tried}`
  }
}

/** The peer's bytes are not those of the digest: another peer is next, as long as none of them was passed on. */
export class ContentCorrupted extends Data.TaggedError("ContentCorrupted")<{
  readonly peer: string
  readonly content: string
}> {
  override get message() {
    return `${this.peer}: sent wrong bytes for ${this.content}`
  }
}

/** Failures of one peer, after which another may do. */
export type PeerError =
  | PeerUnreachable
  | PeerDisconnected
  | PeerStalled
  | PeerSlow
  | PeerRefused
  | ContentCorrupted

/** Why containerd is sent on to upstream. */
export type MirrorError = PeerNotFound | ResolveTimeout | AnswerTimeout

/** What a peer did, without its name. */
export const why = (error: PeerError): string => error.message.slice(error.peer.length + 2)
