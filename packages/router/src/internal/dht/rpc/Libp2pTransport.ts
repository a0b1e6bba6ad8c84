/** Carries the DHT's messages over a libp2p host: one long-lived stream a peer and protocol, opened when it is needed. */
import type { Connection, Libp2p as Host } from "@libp2p/interface"
import { multiaddr } from "@multiformats/multiaddr"
import * as PeerAddress from "../../../PeerAddress.ts"
import type { Member } from "../members/MemberTable.ts"
import { encodeFrame, encodeFrames, type Message, MessageType, type WirePeer } from "./Message.ts"
import { empty, isUnreachable, message, RequestFailed, type Transport } from "./Protocol.ts"
import { Channel } from "./RpcClient.ts"
import * as ServedStream from "./RpcServer.ts"

/** The DHT protocol of Spegel's network, in Go and here. */
export const kademliaProtocol = "/spegel/kad/1.0.0"
/** What Kademlia lacks: withdrawal, goodbye, registry ports and news of members. */
export const notesProtocol = "/spegel-ts/router/1.0.0"

const openTimeoutMillis = 5000
const keysPerBatch = 100
const maxInboundStreams = 8

/** Requests so far by what was asked and what came of it, and the bytes of their frames. */
export interface TransportCounts {
  readonly requests: ReadonlyMap<string, number>
  readonly bytesSent: number
}

const typeNames = new Map<number, string>(Object.entries(MessageType).map(([name, type]) => [type, name]))

const requestOutcomes = ["answered", "unreachable", "failed"]
const noteOutcomes = ["sent", "failed"]

/** What is counted; nothing so far. */
const noRequests = (): Map<string, number> =>
  new Map([
    ...[...typeNames.values()].flatMap((type) => requestOutcomes.map((outcome) => `${type} ${outcome}`)),
    ...noteOutcomes.map((outcome) => `note ${outcome}`)
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

export interface Libp2pTransport extends Transport {
  /** Begins to answer peers. */
  readonly serve: (handlers: {
    readonly answer: (from: string, address: string, message: Message) => Message | undefined
    readonly note: (from: string, message: Message) => void
    readonly onViolation: (connection: Connection) => void
  }) => Promise<void>
  /** When a connected peer was last asked something, in milliseconds since this process began; 0 where it never was. */
  readonly lastUsed: (id: string) => number
  readonly counts: () => TransportCounts
}

/** `self` gives this node as it is written in provider records. */
export const make = (host: Host, self: () => WirePeer): Libp2pTransport => {
  const channels = new Map<string, Promise<Channel>>()
  const used = new Map<string, number>()
  const requests = noRequests()
  let bytesSent = 0
  host.addEventListener("peer:disconnect", ({ detail }) => used.delete(detail.toString()))

  const connect = async (member: Member): Promise<Connection> => {
    const open = host.getConnections().find(({ remotePeer, status }) =>
      status === "open" && remotePeer.toString() === member.id
    )
    if (open !== undefined) return open
    const addresses = member.addresses.map((address) =>
      PeerAddress.withoutId(multiaddr(address)).encapsulate(`/p2p/${member.id}`)
    )
    return host.dial(addresses, { signal: AbortSignal.timeout(openTimeoutMillis) })
  }

  const channelTo = (member: Member, protocol: string): Promise<Channel> => {
    const name = `${member.id} ${protocol}`
    const known = channels.get(name)
    if (known !== undefined) return known
    const forget = () => {
      if (channels.get(name) === opening) channels.delete(name)
    }
    const opening = connect(member).then(async (connection) => {
      const stream = await connection.newStream(protocol, { signal: AbortSignal.timeout(openTimeoutMillis) })
      return new Channel(stream, forget)
    })
    channels.set(name, opening)
    opening.catch(forget)
    return opening
  }

  /** A stream may have been closed for being idle: that is not the peer's fault, and it is opened once more. */
  const onChannel = async <A>(member: Member, protocol: string, use: (channel: Channel) => Promise<A>): Promise<A> => {
    const reused = channels.get(`${member.id} ${protocol}`)
    try {
      try {
        return await use(await channelTo(member, protocol))
      } catch (error) {
        if (reused === undefined) throw error
        if (channels.get(`${member.id} ${protocol}`) === reused) channels.delete(`${member.id} ${protocol}`)
        return await use(await channelTo(member, protocol))
      }
    } catch (error) {
      throw asFailure(error)
    }
  }

  const count = (type: number, outcome: string) => {
    const name = `${typeNames.get(type) ?? "note"} ${outcome}`
    requests.set(name, (requests.get(name) ?? 0) + 1)
  }

  /** Counts a request, and gives up waiting for it after a while. */
  const ask = async <A>(member: Member, type: number, millis: number, use: (channel: Channel) => Promise<A>) => {
    used.set(member.id, performance.now())
    try {
      const answer = await within(millis, onChannel(member, kademliaProtocol, use))
      count(type, "answered")
      return answer
    } catch (error) {
      count(type, isUnreachable(error) ? "unreachable" : "failed")
      throw error
    }
  }

  const barrier = encodeFrame(message(MessageType.ping, empty))

  return {
    request: (member, message, timeoutMillis) => {
      const frame = encodeFrame(message)
      bytesSent += frame.length
      return ask(member, message.type, timeoutMillis, (channel) => channel.request(frame))
    },

    provide: (member, keys) =>
      ask(member, MessageType.addProvider, openTimeoutMillis + keys.length, async (channel) => {
        const [like = empty] = keys
        const record = message(MessageType.addProvider, like, [], [self()])
        for (let from = 0; from < keys.length; from += keysPerBatch) {
          const records = encodeFrames(record, keys.slice(from, from + keysPerBatch))
          // Records have no answer: that to the ping behind them says that they have arrived.
          const frames = Buffer.concat([records, barrier])
          bytesSent += frames.length
          await channel.request(frames)
        }
      }),

    tell: (member, messages) => {
      const frames = Buffer.concat(messages.map(encodeFrame))
      bytesSent += frames.length
      // What is told is no promise: a peer that misses it learns by the life of the records.
      void onChannel(member, notesProtocol, (channel) => channel.send(frames)).then(
        () => count(-1, "sent"),
        () => count(-1, "failed")
      )
    },

    serve: async ({ answer, note, onViolation }) => {
      const options = { maxInboundStreams, maxOutboundStreams: maxInboundStreams }
      const noted = (from: string, _address: string, message: Message) => {
        note(from, message)
        return undefined
      }
      await host.handle(kademliaProtocol, ServedStream.serve({ handle: answer, onViolation }), options)
      await host.handle(notesProtocol, ServedStream.serve({ handle: noted, onViolation }), options)
    },

    lastUsed: (id) => used.get(id) ?? 0,
    counts: () => ({ requests, bytesSent })
  }
}
