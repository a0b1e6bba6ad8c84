/** A network of cores in one process, on a clock that the test moves. */
import { Kademlia, type Provider } from "@spegel-ts/router/internal/dht/Dht"
import { positionOf } from "@spegel-ts/router/internal/dht/Distance"
import { copied, type Member } from "@spegel-ts/router/internal/dht/members/MemberTable"
import type { Message } from "@spegel-ts/router/internal/dht/rpc/Message"
import { message, RequestFailed } from "@spegel-ts/router/internal/dht/rpc/Protocol"

interface Timer {
  readonly at: number
  readonly run: () => void
}

export interface Node {
  readonly id: string
  readonly idBytes: Uint8Array
  readonly address: Uint8Array
  readonly kademlia: Kademlia
  /** Neither answers nor hears. */
  frozen: boolean
  /** Nobody is there: requests are refused. */
  gone: boolean
}

const latencyMillis = 1

export class Network {
  now = 1000
  /** Requests so far. */
  readonly requests: Array<{ readonly from: string; readonly to: string; readonly message: Message }> = []
  readonly nodes = new Map<string, Node>()
  /** Nodes behind a link that is down: they and the others do not reach each other. */
  readonly #away = new Set<string>()
  #timers: Array<Timer> = []
  #suspended = 0
  #drawn = 0.5

  after(millis: number, run: () => void): () => void {
    const timer = { at: this.now + millis, run }
    this.#timers.push(timer)
    return () => {
      this.#timers = this.#timers.filter((other) => other !== timer)
    }
  }

  /** Lets time pass, and everything happen that is due. */
  async pass(millis: number): Promise<void> {
    const end = this.now + millis
    for (;;) {
      await new Promise((resolve) => setImmediate(resolve))
      const next = this.#timers.toSorted((a, b) => a.at - b.at)[0]
      if (next === undefined || next.at > end) break
      this.#timers = this.#timers.filter((timer) => timer !== next)
      this.now = Math.max(this.now, next.at)
      next.run()
    }
    this.now = end
  }

  /** The machines were suspended: `now` stood still meanwhile. */
  suspend(millis: number): void {
    this.#suspended += millis
  }

  #delay(): Promise<void> {
    return new Promise((resolve) => void this.after(latencyMillis, resolve))
  }

  start(name: string, options: { readonly site?: number } = {}): Node {
    const idBytes = Buffer.from(name)
    const address = Buffer.from([options.site ?? this.nodes.size, ...idBytes])
    const request = async (member: Member, asked: Message, timeoutMillis: number): Promise<Message> => {
      this.requests.push({ from: name, to: member.id, message: asked })
      await this.#delay()
      const peer = this.nodes.get(member.id)
      if (peer === undefined || !this.#reaches(node, peer)) throw new RequestFailed("refused", { unreachable: true })
      if (peer.frozen || node.frozen) {
        await new Promise<void>((resolve) => void this.after(timeoutMillis, resolve))
        throw new RequestFailed("no answer", { unreachable: false })
      }
      this.connect(node, peer)
      const answer = peer.kademlia.answer(name, name, asked)
      await this.#delay()
      return answer ?? message(0, Buffer.alloc(0))
    }
    const kademlia = new Kademlia({
      self: { id: name, idBytes },
      addresses: () => [address],
      servicePort: 5000,
      environment: {
        now: () => this.now,
        uptime: () => this.now + this.#suspended,
        random: () => {
          // The same in each run: a low-discrepancy sequence is random enough for jitter.
          this.#drawn = (this.#drawn + 0.618_033_988_749_895) % 1
          return this.#drawn
        },
        after: (millis, run) => this.after(millis, run),
        idText: (id) => Buffer.from(id).toString(),
        usable: (addresses) => addresses.filter(([first]) => first !== 255),
        keep: copied,
        siteOf: ([first]) => String(first?.[0])
      },
      transport: {
        request,
        provide: async (member, keys) => {
          const providers = [{ id: idBytes, addresses: [address] }]
          for (const key of keys) await request(member, message(2, key, [], providers), 1000)
        },
        tell: (member, notes) => {
          const peer = this.nodes.get(member.id)
          if (peer === undefined || peer.frozen || !this.#reaches(node, peer)) return
          void this.#delay().then(() => {
            this.connect(node, peer)
            for (const note of notes) peer.kademlia.note(name, note)
          })
        }
      },
      ttlMillis: 600_000,
      refreshMillis: 540_000
    })
    const node: Node = { id: name, idBytes, address, kademlia, frozen: false, gone: false }
    this.nodes.set(name, node)
    kademlia.start()
    return node
  }

  #reaches(a: Node, b: Node): boolean {
    return !b.gone && this.#away.has(a.id) === this.#away.has(b.id)
  }

  /** The link to some nodes goes down, and connections over it end. */
  part(nodes: ReadonlyArray<Node>): void {
    for (const { id } of nodes) this.#away.add(id)
    for (const a of this.nodes.values()) {
      for (const b of this.nodes.values()) if (!this.#reaches(a, b)) a.kademlia.disconnected(b.id)
    }
  }

  heal(): void {
    this.#away.clear()
  }

  readonly #introduced = new Set<string>()

  /** What identify does on a new connection. */
  connect(a: Node, b: Node): void {
    const pair = [a.id, b.id].toSorted().join(" ")
    if (this.#introduced.has(pair)) return
    this.#introduced.add(pair)
    const facts = ({ address, id, idBytes }: Node) => ({
      id,
      idBytes,
      position: positionOf(idBytes),
      addresses: [address],
      agent: "test",
      ours: true
    })
    a.kademlia.connected(facts(b))
    b.kademlia.connected(facts(a))
  }

  /** Starts `count` nodes that know the first one, and lets them find each other. */
  async grow(count: number): Promise<ReadonlyArray<Node>> {
    const nodes = Array.from({ length: count }, (_, index) => this.start(`node ${index}`))
    for (const node of nodes.slice(1)) this.connect(node, nodes[0] as Node)
    await this.pass(20_000)
    return nodes
  }

  /** Whom a lookup names, and how long it took. */
  async lookup(
    node: Node,
    key: Uint8Array
  ): Promise<{ readonly found: ReadonlyArray<string>; readonly millis: number }> {
    const found: Array<Provider> = []
    const begun = this.now
    const end: { at?: number } = {}
    void node.kademlia.lookup(key, (provider) => {
      found.push(provider)
      return true
    }).then(() => {
      end.at = this.now
    })
    while (end.at === undefined) await this.pass(1)
    return { found: found.map(({ id }) => id), millis: end.at - begun }
  }
}
