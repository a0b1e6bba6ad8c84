/** The interfaces that all parts of the DHT share: to the network, and to the process around them. */
import type { Member, PeerRecord } from "../members/MemberTable.ts"
import type { Message, WirePeer } from "./Message.ts"

/**
 * Types of gossip messages: our own protocol, for what Kademlia lacks. Their `key` field holds
 * - hello: the service port, the fingerprint of the members heard from, and the number of members (2, 4 and 2 bytes,
 *   big-endian);
 * - withdraw: the DHT key that the sender no longer provides;
 * - goodbye (the sender stops) and rest (it closes the connection but stays a member): nothing.
 */
export const GossipType = { hello: 100, withdraw: 101, goodbye: 102, rest: 103 } as const

/**
 * A request was not answered. `unreachable` means that there is no connection either: nobody listens there, or whoever does has
 * proved no membership.
 */
export class RequestFailed extends Error {
  override readonly name = "RequestFailed"
  readonly unreachable: boolean
  constructor(reason: string, options: { readonly unreachable: boolean }) {
    super(reason)
    this.unreachable = options.unreachable
  }
}

export const isUnreachable = (error: unknown): boolean => error instanceof RequestFailed && error.unreachable

/** How messages travel. Requests between two peers are answered in order. */
export interface Transport {
  /** Rejects with `RequestFailed`. */
  readonly request: (member: Member, message: Message, timeoutMillis: number) => Promise<Message>
  /** Tells a member that this node provides `keys`; resolves when the member has them. Rejects with `RequestFailed`. */
  readonly provide: (member: Member, keys: ReadonlyArray<Uint8Array>) => Promise<void>
  /** Sends gossip messages. They have no answer, and a failure is not reported. */
  readonly gossip: (member: Member, messages: ReadonlyArray<Message>) => void
}

/** The process around the core, or the simulation that stands for it. */
export interface Environment {
  /** Milliseconds on a clock that does not jump, and that may stand still while the machine is suspended. */
  readonly now: () => number
  /** Milliseconds since the machine was started, including the time for which it was suspended. */
  readonly uptime: () => number
  /** A number from 0 to 1. */
  readonly random: () => number
  /** Calls back after a while; returns what cancels it. */
  readonly after: After
  /** The text form of a peer id. */
  readonly idText: (id: Uint8Array) => string
  /** Those of the addresses that a peer may claim. */
  readonly usable: (addresses: ReadonlyArray<Uint8Array>) => ReadonlyArray<Uint8Array>
  /** The record to store of a peer that a message named. */
  readonly record: (id: string, peer: WirePeer) => PeerRecord
  /** The group of peers that shares an address: one group may hold a few members only. */
  readonly groupOf: (addresses: ReadonlyArray<Uint8Array>) => string
}

/** Calls `run` back after `millis`; returns what cancels it. */
export type After = (millis: number, run: () => void) => () => void

/** Everything that each part of the core needs from outside. */
export interface Core {
  readonly environment: Environment
  readonly transport: Transport
  /** Calls back later, unless the node has stopped by then. */
  readonly after: After
}

/** How many members store a record: the closest to its key (Kademlia's k). */
export const replication = 20
/** A new member may not have been sent its share of the records before this. */
export const settlingMillis = 2000

export const empty: Uint8Array = new Uint8Array()

/** A key as text, one character a byte, for use as a key of maps. */
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
