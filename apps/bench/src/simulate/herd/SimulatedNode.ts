/**
 * One node of a simulated herd. What it decides is decided by the parts of the mirror that know neither clock nor network: leases, deciders,
 * followers, growth, and the states of a wait and of a body. This file carries out what they say, as `Follow`, `FollowWatch`,
 * `HeldQuestion` and `DownloadAnswer` do.
 */
import * as Digest from "@spegel-ts/oci/Digest"
import * as Deciders from "@spegel-ts/registry/internal/flight/Deciders"
import type * as Lease from "@spegel-ts/registry/internal/flight/Lease"
import { Leases } from "@spegel-ts/registry/internal/flight/Leases"
import * as FollowPolicy from "@spegel-ts/registry/internal/follow/FollowPolicy"
import type { Probed } from "@spegel-ts/registry/internal/follow/PeerProbe"
import { Silence } from "@spegel-ts/registry/internal/follow/Silence"
import { Waiting } from "@spegel-ts/registry/internal/follow/Waiting"
import type { Asked, DownloadState } from "@spegel-ts/registry/internal/share/DownloadState"
import { Evidence } from "@spegel-ts/registry/internal/share/Evidence"
import { Followers } from "@spegel-ts/registry/internal/share/Followers"
import * as Growth from "@spegel-ts/registry/internal/share/Growth"
import { Effect, Exit, Scope } from "effect"
import type { Network } from "./Network.ts"

/** containerd writes in steps of this size, in bytes. */
const grain = 1024 * 1024
const longestMillis = 10_000
const asksInRace = 3
/** Until lookups find what was advertised. */
const advertisedAfterMillis = 30
/** Until a source notices that a follower has gone: its process, or its whole node. */
const closedMillis = 1
const unpluggedMillis = 10_000
const content = Digest.ofBytes(Buffer.from("the layer of the simulation"))

export class SimulatedNode {
  readonly id: string
  readonly #network: Network
  readonly #leases = new Leases(1)
  readonly #followers = new Followers()
  readonly #sending = new Set<SimulatedNode>()
  readonly #evidence = new Evidence()
  readonly #unknown = new Set<SimulatedNode>()
  readonly #met = new Set<SimulatedNode>()
  received = 0
  written = 0
  /** Its own download, as its mirror knows it. */
  growth: { -readonly [K in keyof Growth.Growth]: Growth.Growth[K] } | undefined
  source: SimulatedNode | undefined
  hasMirror = true
  isUnplugged = false
  isStalled = false
  startedAt: number | undefined
  doneAt: number | undefined
  advertisedAt = Infinity
  #upstreamFrom = Infinity
  #grewAt = 0
  /** The longest time without a byte. */
  longestGap = 0

  constructor(network: Network, id: string) {
    this.#network = network
    this.id = id
    network.nodes.push(this)
  }

  /** Its process is gone, and its kernel refuses connections. */
  get isRefusing(): boolean {
    return !this.hasMirror && !this.isUnplugged
  }

  /** Whether it has that node in its list of members. One that is gone stays in there. */
  #knows(node: SimulatedNode): boolean {
    return node === this || !this.#unknown.has(node)
  }

  /** It has not heard of that node yet. */
  overlook(node: SimulatedNode): void {
    this.#unknown.add(node)
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

  get #state(): Omit<DownloadState, "instead"> {
    const { now } = this.#network.clock
    return {
      origin: Growth.originOf(this.growth, this.written, now),
      written: this.written,
      ageMillis: now - Growth.shownAt(this.growth, this.#evidence.lastAt(content), now)
    }
  }

  /** What it answers to the question how far it is, at once. */
  #answer(asked: Asked): Probed {
    if (this.doneAt !== undefined) return { _tag: "Held" }
    if (this.startedAt === undefined) return { _tag: "Gone" }
    const instead = this.#followers.instead(content, asked, this.#network.clock.now)
    return { _tag: "Downloading", state: { ...this.#state, instead } }
  }

  /** The same, once there is something to say. */
  async #held(asked: Asked): Promise<Probed> {
    const { clock } = this.#network
    const until = clock.now + FollowPolicy.holdMillis
    while (this.doneAt === undefined && this.startedAt !== undefined && clock.now < until) {
      const { origin, written } = this.#state
      const hasPlace = this.#followers.hasPlace(content, asked, clock.now)
      if (written > asked.start || origin === "stalled" || !hasPlace) break
      this.#followers.expect(content, asked, clock.now + FollowPolicy.placeMillis)
      await clock.sleep(FollowPolicy.glanceMillis)
    }
    return this.#answer(asked)
  }

  async pull(): Promise<void> {
    const { clock, options } = this.#network
    this.startedAt = this.#grewAt = clock.now
    let failed: SimulatedNode | undefined
    while (!this.#isOver) {
      const found = await this.#race(failed)
      if (this.#isOver) return
      if (found === undefined) return this.#goUpstream(options.firstByteMillis)
      await this.#follow(found)
      failed = found
    }
  }

  get #isOver(): boolean {
    return this.doneAt !== undefined || this.isUnplugged || !this.hasMirror
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

  /** As `Follow.race`: the source that sends; undefined if this node is to download. */
  async #race(failed: SimulatedNode | undefined): Promise<SimulatedNode | undefined> {
    const { clock, random } = this.#network
    const start = this.received
    const knownAt = this.#evidence.lastAt(content)
    const waiting = new Waiting({ self: this.id, start, failed: failed?.id, knownAt, longestMillis, leases: true })
    const found = await this.#askProviders(waiting)
    if (found !== undefined) return found
    const silent = new Set<string>()
    waiting.begin(clock.now, FollowPolicy.turnOf(this.#network.nodes.length, random.next()))
    while (!this.#isOver) {
      const step = waiting.next(clock.now)
      switch (step._tag) {
        case "GiveUp":
          return undefined
        case "AskForLease": {
          const id = await this.#askForLease(step.inVain, silent)
          if (id === undefined) return undefined
          waiting.leased(id, clock.now)
          break
        }
        case "LookAgain": {
          const again = await this.#askProviders(waiting)
          if (again !== undefined) return again
          break
        }
        case "AskSource": {
          await clock.sleep(step.afterMillis)
          const source = await this.#askSource(step.id, waiting)
          if (source !== undefined) return source
          break
        }
        case "Pause":
          await clock.sleep(step.millis * (0.8 + 0.4 * random.next()))
      }
      this.#evidence.shown(content, waiting.provedAt)
    }
    return undefined
  }

  async #askProviders(waiting: Waiting): Promise<SimulatedNode | undefined> {
    const { clock, nodes, random } = this.#network
    const known = nodes.filter((node) => node !== this && node.advertisedAt <= clock.now && !node.isUnplugged)
    for (let asked = 0; asked < asksInRace && known.length > 0; asked++) {
      const [peer] = known.splice(random.below(known.length), 1)
      if (peer !== undefined && await this.#take(peer, waiting)) return peer
    }
    return undefined
  }

  async #askSource(id: string, waiting: Waiting): Promise<SimulatedNode | undefined> {
    const { clock, nodes } = this.#network
    const source = nodes.find((node) => node.id === id && (this.#knows(node) || this.#met.has(node)))
    if (source === undefined) {
      waiting.unknown(id)
      return undefined
    }
    const asked = { asker: this.id, start: this.received }
    const answer = await this.#network.ask(source, FollowPolicy.answerMillis, () => source.#held(asked))
    if (source.isRefusing) waiting.gone(id)
    else if (answer === undefined) waiting.silent(id)
    else if (waiting.answered(id, answer, clock.now) && await this.#take(source, waiting)) return source
    return undefined
  }

  /** Asks a node for its download, or for the content; true if it sends it. */
  async #take(peer: SimulatedNode, waiting: Waiting): Promise<boolean> {
    const asked = { asker: this.id, start: this.received }
    const refusal = await this.#network.ask(peer, FollowPolicy.answerMillis, () => {
      const answer = peer.#answer(asked)
      if (
        answer._tag === "Gone" ||
        answer._tag === "Downloading" && !Growth.isSent(answer.state, asked.start, this.#network.options.size)
      ) return answer
      peer.#admit(this, asked)
      return undefined
    })
    if (this.source === peer) return true
    this.#met.add(peer)
    if (refusal?._tag === "Downloading") waiting.said(peer.id, refusal.state, this.#network.clock.now)
    return false
  }

  #admit(follower: SimulatedNode, asked: Asked): void {
    const scope = Effect.runSync(Scope.make())
    Effect.runSync(Scope.provide(this.#followers.admit(content, asked), scope))
    this.#sending.add(follower)
    follower.source = this
    follower.#leave = () => {
      this.#sending.delete(follower)
      this.#network.clock.after(
        follower.isUnplugged ? unpluggedMillis : closedMillis,
        () => Effect.runSync(Scope.close(scope, Exit.void))
      )
    }
  }

  #leave = () => {}

  #decidersFor(inVain: ReadonlyArray<string>): ReadonlyArray<string> {
    const members = this.#network.nodes.filter((node) => !inVain.includes(node.id) && this.#knows(node))
    return Deciders.choose(
      content,
      this.id,
      members.map(({ id }) => ({ id, addresses: [], servicePort: 0, proved: true }))
    )
  }

  /** As `LeaseRequest.ask`: the node to wait for; undefined if this one is to download. */
  async #askForLease(inVain: ReadonlyArray<string>, silent: Set<string>): Promise<string | undefined> {
    const { clock } = this.#network
    const deciders = this.#decidersFor([...inVain, ...silent])
    if (deciders[0] === this.id) {
      const own = this.#leases.ask(content, { verb: "ask", asker: this.id, inVain }, clock.now)
      if (own._tag === "Wait") return own.id
    }
    for (const id of deciders.filter((id) => id !== this.id)) {
      const asked: Lease.Asked = { verb: "ask", asker: this.id, inVain: [...inVain, ...silent] }
      const decision = await this.#say(id, asked) ?? await this.#say(id, asked)
      if (decision === undefined) {
        silent.add(id)
        continue
      }
      if (decision._tag === "Wait") {
        this.#leases.ask(content, { verb: "hold", asker: decision.id, inVain: [] }, clock.now)
        return decision.id
      }
      for (const other of deciders) {
        if (other !== id && !silent.has(other)) void this.#say(other, { verb: "hold", asker: this.id, inVain: [] })
      }
      return undefined
    }
    return undefined
  }

  async #say(id: string, asked: Lease.Asked, millis = FollowPolicy.decideMillis): Promise<Lease.Decision | undefined> {
    const { clock, nodes } = this.#network
    const decider = nodes.find((node) => node.id === id)
    if (decider === this || decider === undefined) return this.#leases.ask(content, asked, clock.now)
    return this.#network.ask<Lease.Decision>(decider, millis, () => decider.#decide(asked))
  }

  /** As `Decide.forPeer`. */
  async #decide(asked: Lease.Asked): Promise<Lease.Decision> {
    const { clock } = this.#network
    const [first = this.id] = this.#decidersFor(asked.inVain)
    const passed = asked.verb !== "ask" || first === this.id || first === asked.asker
      ? undefined
      : await this.#say(first, { ...asked, verb: "pass" }, FollowPolicy.passMillis)
    if (passed?._tag === "Wait") return passed
    return this.#leases.ask(content, passed === undefined ? asked : { ...asked, verb: "hold" }, clock.now)
  }

  /** As `FollowWatch`: takes bytes of a node until all are there, or it fails. */
  async #follow(source: SimulatedNode): Promise<void> {
    const { clock, random } = this.#network
    this.#begin("peers")
    const start = this.received
    const silence = new Silence(clock.now, {
      longestMillis,
      turn: FollowPolicy.turnOf(this.#network.nodes.length, random.next())
    })
    while (!this.#isOver) {
      // The kernel of a process that has ended closes its connections.
      if (source.isRefusing) break
      const step = silence.next(this.received - start, clock.now)
      if (step._tag === "Leave") break
      if (step._tag === "Pause") await clock.sleep(step.millis)
      else {
        const asked = { asker: this.id, start: this.received }
        const answer = await this.#network.ask(source, step.millis, () => source.#held(asked))
        if (answer !== undefined && silence.answered(answer, asked.start, clock.now) !== undefined) break
      }
      this.#evidence.shown(content, silence.provedAt)
    }
    this.source = undefined
    this.#leave()
  }
}
