/** What the parts of the DHT share: how messages travel, and what the world around gives. */
import type { Member, PeerRecord } from "../members/MemberTable.ts"
import type { Message, WirePeer } from "./Message.ts"

/**
 * Messages of our own protocol, for what Kademlia lacks. `key` is: in a hello the registry port, the fingerprint of the
 * members that were heard and how many members there are (2, 4 and 2 bytes, the most significant first), in a withdrawal the
 * key, else nothing. A node that rests closes a connection to spare it.
 */
export const NoteType = { hello: 100, withdraw: 101, goodbye: 102, rest: 103 } as const

/** A request got no answer. Unreachable: no connection either, nobody is there. */
export class RequestFailed extends Error {
  override readonly name = "RequestFailed"
  readonly unreachable: boolean
  constructor(reason: string, options: { readonly unreachable: boolean }) {
    super(reason)
    this.unreachable = options.unreachable
  }
}

export const isUnreachable = (error: unknown): boolean => error instanceof RequestFailed && error.unreachable

/** How messages travel. Requests on one pair of peers are answered in order. */
export interface Transport {
  /** Rejects with `RequestFailed`. */
  readonly request: (member: Member, message: Message, timeoutMillis: number) => Promise<Message>
  /** Hands over that this node provides `keys`; resolves when the peer has them. Rejects with `RequestFailed`. */
  readonly provide: (member: Member, keys: ReadonlyArray<Uint8Array>) => Promise<void>
  /** Sends messages of our own protocol, without an answer and without a failure. */
  readonly tell: (member: Member, messages: ReadonlyArray<Message>) => void
}

export interface Environment {
  /** Milliseconds on a clock that does not jump, and that may stand still while the machine is suspended. */
  readonly now: () => number
  /** Milliseconds since the machine was started, those included for which it was suspended. */
  readonly uptime: () => number
  /** From 0 to 1. */
  readonly random: () => number
  /** Calls back after a while; gives what cancels it. */
  readonly after: (millis: number, run: () => void) => () => void
  /** Text form of a peer id. */
  readonly idText: (id: Uint8Array) => string
  /** Those of the addresses that a peer may claim. */
  readonly usable: (addresses: ReadonlyArray<Uint8Array>) => ReadonlyArray<Uint8Array>
  /** What is remembered of a peer that others told of. */
  readonly keep: (id: string, peer: WirePeer) => PeerRecord
  /** Names the place that a peer's addresses lead to. */
  readonly siteOf: (addresses: ReadonlyArray<Uint8Array>) => string
}

/** How many members keep a record: the closest to its key. */
export const replication = 20
/** A newcomer may not have been handed its share of the records yet. */
export const settlingMillis = 2000

export const empty: Uint8Array = new Uint8Array()

/** A key as text, one character a byte: what maps are keyed by. */
export const textOf = (key: Uint8Array): string =>
  Buffer.from(key.buffer, key.byteOffset, key.length).toString("latin1")
/** The bytes of a key's text form. */
export const bytesOf = (key: string): Uint8Array => Buffer.from(key, "latin1")

/** A message with the fields that are given. */
export const message = (
  type: number,
  key: Uint8Array,
  closer: ReadonlyArray<WirePeer> = [],
  providers: ReadonlyArray<WirePeer> = []
) => ({ type, key, closer, providers }) satisfies Message
