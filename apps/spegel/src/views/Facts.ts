/** What is known about this node at one moment: all views of it are made of that. */
import { PeerAuth, type PeerAuthMode } from "@spegel-ts/cluster-key/PeerAuth"
import type { Activity } from "@spegel-ts/registry/Activity"
import { type HourTotals, type PullEvent, PullLog } from "@spegel-ts/registry/PullLog"
import { Registry } from "@spegel-ts/registry/Registry"
import type { Peer, PeerFacts } from "@spegel-ts/router/Peer"
import { Router, type Standing } from "@spegel-ts/router/Router"
import { type Snapshot, StateTracker } from "@spegel-ts/state-tracker/StateTracker"
import type { DataPlane } from "@spegel-ts/transfer/DataPlane"
import { Transfer } from "@spegel-ts/transfer/Transfer"
import { Clock, Effect } from "effect"
import { ContainerdFaults } from "../containerd/ContainerdFaults.ts"
import { version } from "../Version.ts"

export interface Facts {
  /** The time of day, in milliseconds since the epoch. */
  readonly now: number
  readonly version: string
  readonly plane: DataPlane
  readonly standing: Standing
  readonly peerAuth: PeerAuthMode
  /** Reasons why containerd does not use this mirror, or keeps no layers for peers. */
  readonly faults: ReadonlyArray<string>
  readonly self: Peer
  readonly peers: ReadonlyArray<PeerFacts>
  readonly advertised: Snapshot
  readonly activity: Activity
  readonly lastHour: HourTotals
  /** The last requests, the newest first. */
  readonly pulls: ReadonlyArray<PullEvent>
}

/** Gives an effect that gathers the facts anew each time. */
export const make = Effect.gen(function*() {
  const router = yield* Router
  const tracker = yield* StateTracker
  const pullLog = yield* PullLog
  const faults = yield* ContainerdFaults
  const registry = yield* Registry
  const { plane } = yield* Transfer
  const { mode } = yield* PeerAuth
  return Effect.all({
    now: Clock.currentTimeMillis,
    version: Effect.succeed(version),
    plane,
    standing: router.standing,
    peerAuth: Effect.succeed(mode),
    faults: Effect.map(faults.known, (known) => [...known.values()]),
    self: router.self,
    peers: router.peers,
    advertised: tracker.snapshot,
    activity: registry.activity,
    lastHour: pullLog.lastHour,
    pulls: pullLog.recent
  }) satisfies Effect.Effect<Facts>
})
