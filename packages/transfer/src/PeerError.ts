/** The errors of a request to one peer. Another peer may succeed in each case; the tag says how long to leave this one alone. */
import { Data } from "effect"

/** No address of the peer accepted a connection. Ask another peer, and leave this one alone for a while. */
export class PeerUnreachable extends Data.TaggedError("PeerUnreachable")<{
  readonly peer: string
  readonly reason: string
}> {
  override get message() {
    return `${this.peer}: ${this.reason}`
  }
}

/** The connection broke, or the peer closed it early. Ask another peer for the rest. */
export class PeerDisconnected extends Data.TaggedError("PeerDisconnected")<{
  readonly peer: string
  readonly reason: string
}> {
  override get message() {
    return `${this.peer}: ${this.reason}`
  }
}

/** The peer is slower than its client, and slower than the limit or than other peers. Ask another peer for the rest. */
export class PeerSlow extends Data.TaggedError("PeerSlow")<{
  readonly peer: string
  readonly bytesPerSecond: number
  /** How long its bytes were waited for. */
  readonly waitedMillis: number
  /** The speed of other peers, if the comparison with them is why it was left. */
  readonly othersBytesPerSecond?: number
}> {
  override get message() {
    const others = this.othersBytesPerSecond
    const beside = others === undefined ? "" : `, where others gave ${others}`
    return `${this.peer}: only ${this.bytesPerSecond} bytes per second${beside}`
  }
}

/** The peer is connected and sends nothing. Ask another peer for the rest. */
export class PeerStalled extends Data.TaggedError("PeerStalled")<{
  readonly peer: string
  readonly waitedMillis: number
}> {
  override get message() {
    return `${this.peer}: no byte for ${this.waitedMillis} ms`
  }
}

/** The peer answered, but not with the content. Ask another peer. */
export class PeerRefused extends Data.TaggedError("PeerRefused")<{
  readonly peer: string
  readonly reason: string
  /** The HTTP status, if it is the reason. */
  readonly status?: number
  /** When the peer may be asked again, if it said so by `Retry-After`. */
  readonly retryAfterMillis?: number
}> {
  override get message() {
    return `${this.peer}: ${this.reason}`
  }
}
