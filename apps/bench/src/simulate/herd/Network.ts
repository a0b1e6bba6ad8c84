/** The simulated network of a herd: messages with delay and loss, and bytes that share links. Times are in milliseconds. */
import { VirtualClock } from "@spegel-ts/testing/dht/VirtualClock"
import { random } from "@spegel-ts/testing/SeededRandom"
import type { SimulatedNode } from "./SimulatedNode.ts"

export interface NetworkOptions {
  readonly seed: number
  /** The size of the blob, in bytes. */
  readonly size: number
  /** Speeds of the registry's link and of each node's, in bytes per second. */
  readonly upstream: number
  readonly link: number
  /** How long the registry takes to its first byte. */
  readonly firstByteMillis: number
  /** The share of messages that get lost. */
  readonly loss: number
}

/** How far the simulation of bytes goes at a time. */
const stepMillis = 20
const medianDelayMillis = 0.5
const spreadOfDelays = 0.6
/** The least of Linux; doubled each time. */
const retransmissionMillis = 200

export class Network {
  readonly clock = new VirtualClock()
  readonly random: ReturnType<typeof random>
  readonly nodes: Array<SimulatedNode> = []
  readonly options: NetworkOptions
  upstreamBytes = 0
  messages = 0

  constructor(options: NetworkOptions) {
    this.options = options
    this.random = random(options.seed)
    this.#move()
  }

  /** Asks a node; undefined after `timeout` if it does not answer, and at once if its process is gone. */
  async ask<A>(to: SimulatedNode, timeout: number, answer: () => A | Promise<A>): Promise<A | undefined> {
    this.messages++
    const late = this.clock.sleep(timeout).then(() => undefined)
    return to.isUnplugged ? late : Promise.race([this.#answered(to, answer), late])
  }

  async #answered<A>(to: SimulatedNode, answer: () => A | Promise<A>): Promise<A | undefined> {
    await this.clock.sleep(this.#delay())
    const value = to.hasMirror ? await answer() : undefined
    await this.clock.sleep(this.#delay())
    return value
  }

  /** Of a message one way. TCP sends again what got lost. */
  #delay(): number {
    let resent = 0
    for (let wait = retransmissionMillis; this.random.chance(this.options.loss); wait *= 2) resent += wait
    const normal = Math.sqrt(-2 * Math.log(1 - this.random.next())) * Math.cos(2 * Math.PI * this.random.next())
    return resent + medianDelayMillis * Math.exp(spreadOfDelays * normal)
  }

  /** Moves bytes on all links for one step, and sets the next one. */
  #move(): void {
    this.clock.after(stepMillis, () => {
      const { link, size, upstream } = this.options
      const share = stepMillis / 1000
      const down = new Map(this.nodes.map((node) => [node, link * share]))
      const take = (node: SimulatedNode, bytes: number) => {
        const room = Math.min(bytes, down.get(node) ?? 0, size - node.received)
        down.set(node, (down.get(node) ?? 0) - room)
        if (room > 0) node.take(room, this.clock.now)
        return room
      }
      const downloading = this.nodes.filter((node) => node.isDownloading(this.clock.now))
      for (const node of downloading) this.upstreamBytes += take(node, upstream * share / downloading.length)
      for (const source of this.nodes) {
        const followers = source.sendsTo()
        for (const follower of followers) {
          take(follower, Math.min(link * share / followers.length, source.written - follower.received))
        }
      }
      this.#move()
    })
  }
}
