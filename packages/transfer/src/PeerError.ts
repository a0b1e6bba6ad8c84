/** How a request to one peer fails. The tag decides what happens next; another peer may do in each case. */
import { Data } from "effect"

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
