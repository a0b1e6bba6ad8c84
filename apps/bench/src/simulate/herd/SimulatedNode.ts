/**
 * One node of a simulated herd. What it decides is decided by the parts of the mirror that know neither clock nor network: leases, deciders,
 * followers, growth and policy. This file does what `Follow` does with them.
 */
import * as Digest from "@spegel-ts/oci/Digest"
import * as Deciders from "@spegel-ts/registry/internal/flight/Deciders"
import { Leases } from "@spegel-ts/registry/internal/flight/Leases"
import * as FollowPolicy from "@spegel-ts/registry/internal/follow/FollowPolicy"
import type { DownloadState } from "@spegel-ts/registry/internal/share/DownloadState"
import { Followers } from "@spegel-ts/registry/internal/share/Followers"
import * as Growth from "@spegel-ts/registry/internal/share/Growth"
import { Effect, Exit, Scope } from "effect"
import type { Network } from "./Network.ts"

/** containerd writes in steps of this size, in bytes. */
const grain = 1024 * 1024
const longestWaitMillis = 10_000
const probeTimeoutMillis = 1000
const maxSources = 3
const asksInRace = 3
/** Until lookups find what was advertised. */
const advertisedAfterMillis = 30
const silenceMillis = 500
const watchEveryMillis = 250
const content = Digest.ofBytes(Buffer.from("the layer of the simulation"))

interface Waiting {
  readonly sources: Set<SimulatedNode>
  readonly inVain: Set<string>
  begun: number | undefined
  shownAt: number
  provedAt: number
  lookedAt: number
}

export class SimulatedNode {
  readonly id: string
  readonly #network: Network
  readonly #leases = new Leases(1)
  readonly #followers = new Followers()
  readonly #sending = new Set<SimulatedNode>()
  readonly #turn: number
  received = 0
  written = 0
  /** Its own download, as its mirror knows it. */
  growth: { -readonly [K in keyof Growth.Growth]: Growth.Growth[K] } | undefined
  source: SimulatedNode | undefined
  hasMirror = true
  isUnplugged = false
  isStalled = false
  startedAt = 0
  doneAt: number | undefined
  advertisedAt = Infinity
  #upstreamFrom = Infinity
  #grewAt = 0
  /** The longest time without a byte. */
  longestGap = 0

  constructor(network: Network, id: string, nodes: number) {
    this.#network = network
    this.id = id
    this.#turn = FollowPolicy.turnOf(nodes, network.random.next())
    network.nodes.push(this)
  }

  isDownloading(now: number): boolean {
    return !this.isUnplugged && !this.isStalled && this.doneAt === undefined && now >= this.#upstreamFrom
  }

  sendsTo(): ReadonlyArray<SimulatedNode> {
    if (this.isUnplugged || !this.hasMirror) return []
    return [...this.#sending].filter((follower) => follower.source === this && follower.received < this.written)
  }

  take(bytes: number, now: number): void {
    this.received += bytes
    if (this.#network.options.size - this.received < 1) this.received = this.#network.options.size
    this.longestGap = Math.max(this.longestGap, now - this.#grewAt)
    this.#grewAt = now
    const written = this.received === this.#network.options.size
      ? this.received
      : Math.floor(this.received / grain) * grain
    if (written > this.written) {
      this.written = written
      if (this.growth !== undefined) {
        this.growth.written = written
        this.growth.grewAt = now
      }
    }
    if (this.received === this.#network.options.size) this.doneAt ??= now
  }

  /** As `DownloadAnswer` has it. */
  stateFor(asker: string, start: number): DownloadState | "held" | undefined {
    if (this.doneAt !== undefined) return "held"
    if (this.growth === undefined) return undefined
    const origin = Growth.originOf(this.growth, this.written, this.#network.clock.now)
    return { origin, written: this.written, instead: this.#followers.instead(content, { asker, start }) }
  }

  async pull(): Promise<void> {
    const { clock, options } = this.#network
    this.startedAt = this.#grewAt = clock.now
    let failed: SimulatedNode | undefined
    while (this.doneAt === undefined) {
      const found = await this.#race(failed)
      if (!this.hasMirror || this.isUnplugged) return
      if (found === undefined) return this.#goUpstream(options.firstByteMillis)
      await this.#follow(found)
      failed = found
    }
  }

  /** Its containerd goes on from upstream. */
  #goUpstream(firstByteMillis: number): void {
    const { clock } = this.#network
    this.source = undefined
    this.#begin("upstream")
    this.#upstreamFrom = clock.now + firstByteMillis
  }

  /** Its mirror is gone; its containerd goes on from upstream, and nobody knows. */
  loseMirror(): void {
    const { clock, options } = this.#network
    this.hasMirror = false
    this.source = undefined
    this.growth = undefined
    if (this.doneAt === undefined && this.#upstreamFrom === Infinity) {
      this.#upstreamFrom = clock.now + options.firstByteMillis
    }
  }

  #begin(origin: "upstream" | "peers"): void {
    const { now } = this.#network.clock
    if (this.growth === undefined) this.advertisedAt = now + advertisedAfterMillis
    this.growth = { origin, since: now, grewAt: now, written: this.written }
  }

  async #race(failed: SimulatedNode | undefined): Promise<SimulatedNode | undefined> {
    const waiting: Waiting = {
      sources: new Set(),
      inVain: new Set(failed === undefined ? [] : [failed.id]),
      begun: undefined,
      shownAt: 0,
      provedAt: 0,
      lookedAt: 0
    }
    for (;;) {
      const found = await this.#askProviders(waiting)
      if (found !== undefined) return found
      if (!await this.#wait(waiting)) return undefined
      if (this.doneAt !== undefined || this.isUnplugged || !this.hasMirror) return undefined
    }
  }

  async #askProviders(waiting: Waiting): Promise<SimulatedNode | undefined> {
    const { clock, nodes, random } = this.#network
    const known = nodes.filter((node) => node !== this && node.advertisedAt <= clock.now && !node.isUnplugged)
    for (let asked = 0; asked < asksInRace && known.length > 0; asked++) {
      const [peer] = known.splice(random.below(known.length), 1)
      if (peer !== undefined && await this.#attach(peer, waiting)) return peer
    }
    return undefined
  }

  /** Asks a node for its download, or for the content; true if it sends it. */
  async #attach(peer: SimulatedNode, waiting: Waiting): Promise<boolean> {
    const start = this.received
    const refusal = await this.#network.ask(peer, probeTimeoutMillis, () => {
      const state = peer.stateFor(this.id, start)
      if (state === undefined || (state !== "held" && (state.written <= start || state.instead.length > 0))) {
        return state
      }
      peer.#admit(this, start)
      return undefined
    })
    if (this.source === peer) return true
    if (refusal !== undefined) this.#note(peer, refusal, waiting)
    return false
  }

  #admit(follower: SimulatedNode, start: number): void {
    const scope = Effect.runSync(Scope.make())
    Effect.runSync(Scope.provide(this.#followers.admit(content, { asker: follower.id, start }), scope))
    this.#sending.add(follower)
    follower.source = this
    follower.#leave = () => {
      this.#sending.delete(follower)
      Effect.runSync(Scope.close(scope, Exit.void))
    }
  }

  #leave = () => {}

  #note(peer: SimulatedNode, { instead, origin }: DownloadState, waiting: Waiting): void {
    if (origin === "stalled" || (origin === "peers" && instead.length === 0)) return
    waiting.shownAt = waiting.provedAt = this.#network.clock.now
    this.#addSources(waiting, [peer.id, ...instead])
  }

  #addSources({ inVain, sources }: Waiting, ids: ReadonlyArray<string>): void {
    for (const id of ids) {
      const node = this.#network.nodes.find((one) => one.id === id)
      if (node === this) continue
      if (node === undefined || node.isUnplugged || !node.hasMirror) inVain.add(id)
      else if (sources.size < maxSources) sources.add(node)
    }
  }

  async #wait(waiting: Waiting): Promise<boolean> {
    const { clock, random } = this.#network
    if (waiting.begun === undefined) {
      if (waiting.sources.size === 0 && !await this.#findAnother(waiting)) return false
      waiting.begun = clock.now
      waiting.shownAt = clock.now
      waiting.provedAt = clock.now
      waiting.lookedAt = clock.now
    }
    for (;;) {
      if (this.#isOver(waiting, clock.now)) return false
      const silence = waiting.sources.size === 0 ? 0 : FollowPolicy.goneMillis
      if (clock.now - waiting.shownAt > silence && !await this.#findAnother(waiting)) return false
      if (clock.now - waiting.lookedAt >= FollowPolicy.lookAgainMillis) {
        waiting.lookedAt = clock.now
        return true
      }
      await clock.sleep(FollowPolicy.askAgainMillis * (0.8 + 0.4 * random.next()))
      let isEnough = false
      for (const source of waiting.sources) isEnough = await this.#probe(source, waiting) || isEnough
      if (isEnough) return true
    }
  }

  #isOver({ begun = 0, provedAt }: Waiting, now: number): boolean {
    return now - begun > FollowPolicy.maxWaitMillis(longestWaitMillis, this.#turn) ||
      now - provedAt > FollowPolicy.unprovedMillis + FollowPolicy.patienceMillis(this.#turn)
  }

  /** Asks a source how far it is; true if it sends what is wanted. */
  async #probe(source: SimulatedNode, waiting: Waiting): Promise<boolean> {
    const start = this.received
    const state = await this.#network.ask(
      source,
      probeTimeoutMillis,
      () => source.stateFor(this.id, start) ?? "gone" as const
    )
    if (state === undefined) return false
    if (state === "held" || (state !== "gone" && state.written > start && state.instead.length === 0)) return true
    if (state !== "gone" && state.origin !== "stalled") this.#note(source, state, waiting)
    else {
      waiting.sources.delete(source)
      waiting.inVain.add(source.id)
    }
    return false
  }

  async #findAnother(waiting: Waiting): Promise<boolean> {
    const { clock } = this.#network
    for (const { id } of waiting.sources) waiting.inVain.add(id)
    waiting.sources.clear()
    const id = await this.#askForLease([...waiting.inVain])
    if (id === undefined) return false
    waiting.shownAt = clock.now
    this.#addSources(waiting, [id])
    return true
  }

  /** The node to wait for; undefined if this one is to download. */
  async #askForLease(inVain: ReadonlyArray<string>): Promise<string | undefined> {
    const { clock, nodes } = this.#network
    const members = nodes.filter(({ isUnplugged }) => !isUnplugged)
    const peers = members.map(({ id }) => ({ id, addresses: [], servicePort: 0, proved: true }))
    const asked = { asker: this.id, inVain }
    const asking = Deciders.choose(content, this.id, peers).map((id) => {
      const decider = nodes.find((node) => node.id === id) ?? this
      const ask = () => decider.#leases.ask(content, asked, clock.now)
      return decider === this ? Promise.resolve(ask()) : this.#network.ask(decider, probeTimeoutMillis, ask)
    })
    for (const answer of asking) {
      const decision = await answer
      if (decision !== undefined) return decision._tag === "Go" ? undefined : decision.id
    }
    return undefined
  }

  /** Takes bytes of a node until all are there, or it fails. */
  async #follow(source: SimulatedNode): Promise<void> {
    const { clock } = this.#network
    this.#begin("peers")
    let last = this.received
    let shownAt = clock.now
    let grewAt = clock.now
    while (this.doneAt === undefined && !this.isUnplugged && this.hasMirror) {
      await clock.sleep(watchEveryMillis)
      // The kernel of a process that has ended closes its connections.
      if (!source.hasMirror && !source.isUnplugged) break
      if (this.received > last) {
        last = this.received
        shownAt = grewAt = clock.now
      }
      if (clock.now - shownAt < silenceMillis) continue
      const start = this.received
      const state = await this.#network.ask(
        source,
        probeTimeoutMillis,
        () => source.stateFor(this.id, start) ?? "gone" as const
      )
      if (state === "gone" || (state !== undefined && state !== "held" && state.origin === "stalled")) break
      if (state !== undefined) shownAt = clock.now
      if (clock.now - shownAt > FollowPolicy.goneMillis || clock.now - grewAt > longestWaitMillis) break
    }
    this.source = undefined
    this.#leave()
  }
}
