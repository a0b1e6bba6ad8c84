/** Carries the DHT's messages over a libp2p host: one long-lived stream for each peer and protocol, opened on demand. */
import type { Connection, Libp2p as Host } from "@libp2p/interface"
import { multiaddr } from "@multiformats/multiaddr"
import * as PeerAddress from "../../../PeerAddress.ts"
import type { Admission } from "../../proof/Admission.ts"
import { whenAdmitted } from "../../proof/HeldStreams.ts"
import { meaningOf } from "../../proof/ProofFailure.ts"
import type { Member } from "../members/MemberTable.ts"
import { encodeFrame, encodeFrames, type Message, MessageType, type WirePeer } from "./Message.ts"
import { empty, isUnreachable, message, RequestFailed, type Transport } from "./Protocol.ts"
import { RpcClient } from "./RpcClient.ts"
import * as RpcServer from "./RpcServer.ts"

/** The DHT protocol of Spegel's network, spoken by the Go implementation too. */
export const kademliaProtocol = "/spegel/kad/1.0.0"
/** Our protocol for messages that Kademlia lacks: withdrawal, goodbye, service ports and gossip about members. */
export const gossipProtocol = "/spegel-ts/router/1.0.0"

const openTimeoutMillis = 5000
const keysPerBatch = 100
const maxInboundStreams = 8

/** Requests so far by type and outcome ("ping answered"), and the bytes of their frames. */
export interface TransportCounts {
  readonly requests: ReadonlyMap<string, number>
  readonly bytesSent: number
}

/** The functions that answer peers. */
export interface Handlers {
  /** Answers a DHT message of a peer that is connected from `address`. */
  readonly answer: (from: string, address: string, message: Message) => Message | undefined
  readonly gossip: (from: string, message: Message) => void
  /** A peer broke the protocol, and its stream was aborted. */
  readonly onViolation: (connection: Connection) => void
}

const typeNames = new Map<number, string>(Object.entries(MessageType).map(([name, type]) => [type, name]))
/** The metric's name for gossip messages. */
const gossipName = "note"

const requestOutcomes = ["answered", "unreachable", "failed"]
const gossipOutcomes = ["sent", "failed"]

/** All combinations, at zero: a series has to exist before its first increase. */
const noRequests = (): Map<string, number> =>
  new Map([
    ...[...typeNames.values()].flatMap((type) => requestOutcomes.map((outcome) => `${type} ${outcome}`)),
    ...gossipOutcomes.map((outcome) => `${gossipName} ${outcome}`)
  ].map((name) => [name, 0]))

const isRefused = (error: unknown): boolean =>
  /ECONNREFUSED|EHOSTUNREACH|ENETUNREACH/.test(String(error)) ||
  (error instanceof AggregateError && error.errors.length > 0 && error.errors.every(isRefused))

const asFailure = (error: unknown): RequestFailed =>
  error instanceof RequestFailed ? error : new RequestFailed(String(error), { unreachable: isRefused(error) })

const within = <A>(millis: number, promise: Promise<A>): Promise<A> =>
  new Promise((resolve, reject) => {
    const timer = setTimeout(
      () => reject(new RequestFailed(`no answer in ${millis} ms`, { unreachable: false })),
      millis
    )
    promise.then(resolve, reject).finally(() => clearTimeout(timer))
  })

/** Behind a batch of records, which have no answer, its answer confirms that the records have arrived. */
const barrier = encodeFrame(message(MessageType.ping, empty))

export class Libp2pTransport implements Transport {
  readonly #host: Host
  readonly #self: () => WirePeer
  readonly #admission: Admission
  /** By peer id and protocol. */
  readonly #clients = new Map<string, Promise<RpcClient>>()
  readonly #used = new Map<string, number>()
  readonly #requests = noRequests()
  #bytesSent = 0

  /** `self` gives this node as provider records name it. `admission` says which connections carry messages. */
  constructor(host: Host, self: () => WirePeer, admission: Admission) {
    this.#host = host
    this.#self = self
    this.#admission = admission
    host.addEventListener("peer:disconnect", ({ detail }) => this.#used.delete(detail.toString()))
  }

  /** Begins to answer peers. */
  async serve({ answer, gossip, onViolation }: Handlers): Promise<void> {
    const options = { maxInboundStreams, maxOutboundStreams: maxInboundStreams }
    const gossiped = (from: string, _address: string, message: Message) => {
      gossip(from, message)
      return undefined
    }
    const serve = (protocol: string, handle: RpcServer.RpcServerOptions["handle"]) =>
      this.#host.handle(protocol, whenAdmitted(this.#admission, RpcServer.serve({ handle, onViolation })), options)
    await serve(kademliaProtocol, answer)
    await serve(gossipProtocol, gossiped)
  }

  request(member: Member, message: Message, timeoutMillis: number): Promise<Message> {
    const frame = this.#counted(encodeFrame(message))
    return this.#ask(member, message.type, timeoutMillis, (client) => client.request(frame))
  }

  provide(member: Member, keys: ReadonlyArray<Uint8Array>): Promise<void> {
    return this.#ask(member, MessageType.addProvider, openTimeoutMillis + keys.length, async (client) => {
      const [like = empty] = keys
      const record = message(MessageType.addProvider, like, [], [this.#self()])
      for (let from = 0; from < keys.length; from += keysPerBatch) {
        const records = encodeFrames(record, keys.slice(from, from + keysPerBatch))
        await client.request(this.#counted(Buffer.concat([records, barrier])))
      }
    })
  }

  gossip(member: Member, messages: ReadonlyArray<Message>): void {
    const frames = this.#counted(Buffer.concat(messages.map(encodeFrame)))
    // Gossip is best effort: a peer that misses a withdrawal drops the record when it expires.
    void this.#withClient(member, gossipProtocol, (client) => client.send(frames)).then(
      () => this.#count(`${gossipName} sent`),
      () => this.#count(`${gossipName} failed`)
    )
  }

  /** When a connected peer was last sent a request, in milliseconds since this process began; 0 if never. */
  lastUsed(id: string): number {
    return this.#used.get(id) ?? 0
  }

  get counts(): TransportCounts {
    return { requests: this.#requests, bytesSent: this.#bytesSent }
  }

  /** Sends a request, waits for its answer for a limited time, and counts it. */
  async #ask<A>(member: Member, type: number, millis: number, use: (client: RpcClient) => Promise<A>): Promise<A> {
    this.#used.set(member.id, performance.now())
    const name = typeNames.get(type) ?? gossipName
    try {
      const answer = await within(millis, this.#withClient(member, kademliaProtocol, use))
      this.#count(`${name} answered`)
      return answer
    } catch (error) {
      this.#count(`${name} ${isUnreachable(error) ? "unreachable" : "failed"}`)
      throw error
    }
  }

  /** Uses the peer's stream. If a known stream fails it may have been closed for being idle, and is opened once more. */
  async #withClient<A>(member: Member, protocol: string, use: (client: RpcClient) => Promise<A>): Promise<A> {
    const name = `${member.id} ${protocol}`
    const reused = this.#clients.get(name)
    try {
      try {
        return await use(await this.#clientTo(member, protocol))
      } catch (error) {
        if (reused === undefined) throw error
        if (this.#clients.get(name) === reused) this.#clients.delete(name)
        return await use(await this.#clientTo(member, protocol))
      }
    } catch (error) {
      throw asFailure(error)
    }
  }

  #clientTo(member: Member, protocol: string): Promise<RpcClient> {
    const name = `${member.id} ${protocol}`
    const known = this.#clients.get(name)
    if (known !== undefined) return known
    const forget = () => {
      if (this.#clients.get(name) === opening) this.#clients.delete(name)
    }
    const opening = this.#connect(member).then(async (connection) => {
      await this.#admitted(connection)
      const stream = await connection.newStream(protocol, { signal: AbortSignal.timeout(openTimeoutMillis) })
      return new RpcClient(stream, forget)
    })
    this.#clients.set(name, opening)
    opening.catch(forget)
    return opening
  }

  async #connect(member: Member): Promise<Connection> {
    const connections = this.#host.getConnections().filter(({ remotePeer, status }) =>
      status === "open" && remotePeer.toString() === member.id
    )
    const isAdmitted = (connection: Connection) => {
      const outcome = this.#admission.now(connection)
      return outcome !== undefined && outcome._tag !== "Refused"
    }
    const open = connections.find(isAdmitted) ?? connections[0]
    if (open !== undefined) return open
    const addresses = member.addresses.map((address) =>
      PeerAddress.withoutId(multiaddr(address)).encapsulate(`/p2p/${member.id}`)
    )
    return this.#host.dial(addresses, { signal: AbortSignal.timeout(openTimeoutMillis) })
  }

  /** Waits until the connection may carry messages. Rejects with `RequestFailed` if it may not. */
  async #admitted(connection: Connection): Promise<void> {
    const outcome = this.#admission.now(connection) ?? await this.#admission.settled(connection)
    if (outcome._tag !== "Refused") return
    const { reason } = outcome
    throw new RequestFailed(`peers like this ${meaningOf(reason)}`, { unreachable: reason !== "timeout" })
  }

  #counted(frames: Uint8Array): Uint8Array {
    this.#bytesSent += frames.length
    return frames
  }

  #count(name: string): void {
    this.#requests.set(name, (this.#requests.get(name) ?? 0) + 1)
  }
}
