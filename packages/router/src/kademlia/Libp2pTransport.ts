/**
 * Carries the DHT's messages over a libp2p host: one long-lived stream a peer and protocol, on which requests follow each
 * other without waiting, and the answering side with its bounds.
 */
import type { Connection, Libp2p as Host, Stream } from "@libp2p/interface"
import { multiaddr } from "@multiformats/multiaddr"
import * as PeerAddress from "../PeerAddress.ts"
import { FrameSplitter } from "./FrameSplitter.ts"
import type { Member } from "./Members.ts"
import { decode, encodeFrame, type Message, MessageType } from "./Message.ts"
import { RequestFailed, type Transport } from "./Protocol.ts"

/** The DHT protocol of Spegel's network, in Go and here. */
export const kademliaProtocol = "/spegel/kad/1.0.0"
/** What Kademlia lacks: withdrawal, goodbye, registry ports and news of members. */
export const notesProtocol = "/spegel-ts/router/1.0.0"

const openTimeoutMillis = 5000
const keysPerFrameBatch = 100
/** Frames of one peer that are answered before everybody else has a turn. */
const framesPerTurn = 64
const maxInboundStreams = 8
/** Go closes a stream that is idle for 60 s, js-libp2p one of 10 s; ours may rest, and is opened again on demand. */
const inactivityTimeout = 120_000

interface Pending {
  readonly resolve: (message: Message) => void
  readonly reject: (error: RequestFailed) => void
}

const closed = () => new RequestFailed("the stream was closed", { unreachable: false })

/** The asking side of one stream. */
class Channel {
  readonly #stream: Stream
  readonly #splitter = new FrameSplitter()
  /** Requests in the order of their answers; one that nobody waits for any more keeps its place. */
  readonly #pending: Array<Pending> = []
  constructor(stream: Stream, onClose: () => void) {
    this.#stream = stream
    stream.inactivityTimeout = inactivityTimeout
    stream.addEventListener("message", ({ data }) => {
      try {
        for (const frame of this.#splitter.push(data.subarray())) this.#pending.shift()?.resolve(decode(frame))
      } catch (error) {
        stream.abort(error instanceof Error ? error : new Error(String(error)))
      }
    })
    const end = () => {
      onClose()
      for (const { reject } of this.#pending.splice(0)) reject(closed())
    }
    stream.addEventListener("close", end)
    stream.addEventListener("remoteCloseWrite", end)
  }

  request(frame: Uint8Array): Promise<Message> {
    return new Promise((resolve, reject) => {
      this.#pending.push({ resolve, reject })
      void this.send(frame).catch(() => reject(closed()))
    })
  }

  async send(frame: Uint8Array): Promise<void> {
    if (this.#stream.status !== "open") throw closed()
    if (!this.#stream.send(frame)) await this.#stream.onDrain()
  }
}

const isRefused = (error: unknown): boolean =>
  /ECONNREFUSED|EHOSTUNREACH|ENETUNREACH/.test(String(error)) ||
  (error instanceof AggregateError && error.errors.length > 0 && error.errors.every(isRefused))

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
    readonly answer: (from: string, message: Message) => Message | undefined
    readonly note: (from: string, message: Message) => void
  }) => Promise<void>
}

/** `self` gives this node as it is written in provider records. */
export const make = (
  host: Host,
  self: () => { readonly id: Uint8Array; readonly addresses: ReadonlyArray<Uint8Array> }
): Libp2pTransport => {
  const channels = new Map<string, Promise<Channel>>()

  const connect = async (member: Member): Promise<Connection> => {
    const open = host.getConnections().find(({ remotePeer, status }) =>
      status === "open" && remotePeer.toString() === member.id
    )
    if (open !== undefined) return open
    const addresses = member.addresses.map((address) =>
      PeerAddress.withoutId(multiaddr(address)).encapsulate(`/p2p/${member.id}`)
    )
    try {
      return await host.dial(addresses, { signal: AbortSignal.timeout(openTimeoutMillis) })
    } catch (error) {
      throw new RequestFailed(String(error), { unreachable: isRefused(error) })
    }
  }

  const channelTo = (member: Member, protocol: string): Promise<Channel> => {
    const name = `${member.id} ${protocol}`
    const known = channels.get(name)
    if (known !== undefined) return known
    const opening = connect(member).then(async (connection) => {
      const stream = await connection.newStream(protocol, { signal: AbortSignal.timeout(openTimeoutMillis) })
      return new Channel(stream, () => channels.delete(name))
    })
    channels.set(name, opening)
    opening.catch(() => channels.delete(name))
    return opening
  }

  /** A stream may have been closed for being idle: that is not the peer's fault, and it is opened once more. */
  const onChannel = async <A>(member: Member, protocol: string, use: (channel: Channel) => Promise<A>): Promise<A> => {
    const name = `${member.id} ${protocol}`
    const reused = channels.has(name)
    try {
      return await use(await channelTo(member, protocol))
    } catch (error) {
      if (!reused) {
        throw error instanceof RequestFailed
          ? error
          : new RequestFailed(String(error), { unreachable: false })
      }
      channels.delete(name)
      return use(await channelTo(member, protocol))
    }
  }

  const barrier = encodeFrame({ type: MessageType.ping, key: new Uint8Array(), closer: [], providers: [] })

  const serveStream =
    (handle: (from: string, message: Message) => Message | undefined) => (stream: Stream, connection: Connection) => {
      const from = connection.remotePeer.toString()
      const splitter = new FrameSplitter()
      const waiting: Array<Uint8Array> = []
      let busy = false
      stream.inactivityTimeout = inactivityTimeout

      const work = async () => {
        busy = true
        try {
          for (let frames = 0; waiting.length > 0; frames++) {
            if (frames === framesPerTurn) {
              frames = 0
              stream.pause()
              await new Promise((resolve) => setImmediate(resolve))
            }
            const frame = waiting.shift()
            const answer = frame === undefined ? undefined : handle(from, decode(frame))
            if (answer !== undefined && !stream.send(encodeFrame(answer))) {
              // Who does not read its answers is not read either.
              stream.pause()
              await stream.onDrain()
            }
          }
          busy = false
          // What came meanwhile is delivered within this call.
          if (stream.readStatus === "paused") stream.resume()
        } catch (error) {
          busy = false
          stream.abort(error instanceof Error ? error : new Error(String(error)))
        }
      }
      stream.addEventListener("message", ({ data }) => {
        try {
          waiting.push(...splitter.push(data.subarray()))
        } catch (error) {
          return stream.abort(error instanceof Error ? error : new Error(String(error)))
        }
        if (!busy) void work()
      })
      stream.addEventListener("remoteCloseWrite", () => {
        void stream.close().catch(() => undefined)
      })
    }

  return {
    request: (member, message, timeoutMillis) =>
      within(timeoutMillis, onChannel(member, kademliaProtocol, (channel) => channel.request(encodeFrame(message)))),

    provide: (member, keys) =>
      within(
        openTimeoutMillis + keys.length,
        onChannel(member, kademliaProtocol, async (channel) => {
          const providers = [self()]
          for (let from = 0; from < keys.length; from += keysPerFrameBatch) {
            const frames = keys.slice(from, from + keysPerFrameBatch).map((key) =>
              encodeFrame({ type: MessageType.addProvider, key, closer: [], providers })
            )
            await channel.send(Buffer.concat(frames))
            await channel.request(barrier)
          }
        })
      ),

    tell: (member, messages) => {
      const frames = Buffer.concat(messages.map(encodeFrame))
      // What is told is no promise: a peer that misses it learns by the life of the records.
      void onChannel(member, notesProtocol, (channel) => channel.send(frames)).catch(() => undefined)
    },

    serve: async ({ answer, note }) => {
      const options = { maxInboundStreams, maxOutboundStreams: maxInboundStreams }
      await host.handle(kademliaProtocol, serveStream(answer), options)
      await host.handle(
        notesProtocol,
        serveStream((from, message) => {
          note(from, message)
          return undefined
        }),
        options
      )
    }
  }
}
