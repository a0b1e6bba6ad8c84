/** Why content did not come from a peer. The tag decides what happens next: another peer, or upstream. */
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

/** No connection could be made: another peer is next, and this one is left alone for a while. */
export class PeerUnreachable extends Data.TaggedError("PeerUnreachable")<{
  readonly peer: string
  readonly reason: string
}> {
  override get message() {
    return `${this.peer}: ${this.reason}`
  }
}

/** The connection broke: another peer is next. */
export class PeerDisconnected extends Data.TaggedError("PeerDisconnected")<{
  readonly peer: string
  readonly reason: string
}> {
  override get message() {
    return `${this.peer}: ${this.reason}`
  }
}

/** The peer sends less than its client takes, and less than a peer has to or others do: another peer is next. */
export class PeerSlow extends Data.TaggedError("PeerSlow")<{
  readonly peer: string
  readonly bytesPerSecond: number
  /** For how long its bytes were waited for. */
  readonly waitedMillis: number
  /** What other peers gave, where that is why it was left. */
  readonly othersBytesPerSecond?: number
}> {
  override get message() {
    const others = this.othersBytesPerSecond
    const beside = others === undefined ? "" : `, where others gave ${others}`
    return `${this.peer}: only ${this.bytesPerSecond} bytes per second${beside}`
  }
}

/** The peer is connected and sends nothing: another peer is next. */
export class PeerStalled extends Data.TaggedError("PeerStalled")<{
  readonly peer: string
  readonly waitedMillis: number
}> {
  override get message() {
    return `${this.peer}: no byte for ${this.waitedMillis} ms`
  }
}

/** The peer answered, but not with the content: another peer is next. */
export class PeerRefused extends Data.TaggedError("PeerRefused")<{
  readonly peer: string
  readonly reason: string
  /** The HTTP status, where the answer was one. */
  readonly status?: number
  /** When the peer wants to be asked again, where it said so (`Retry-After`). */
  readonly retryAfterMillis?: number
}> {
  override get message() {
    return `${this.peer}: ${this.reason}`
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
