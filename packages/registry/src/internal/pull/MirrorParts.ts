/** The parts of a mirror that all its pulls share. */
import { BoundedMap } from "@spegel-ts/background/BoundedMap"
import { PeerAuth, type PeerAuthMode } from "@spegel-ts/cluster-key/PeerAuth"
import { Router } from "@spegel-ts/router/Router"
import * as FileLease from "@spegel-ts/transfer/FileLease"
import { Duration, Effect, type Schedule, type Scope } from "effect"
import type { MirrorOptions } from "../../Mirror.ts"
import * as ResolvePolicy from "../../ResolvePolicy.ts"
import * as ProvedTransport from "../auth/ProvedTransport.ts"
import { Leases } from "../flight/Leases.ts"
import * as BufferedBodies from "../mirror/BufferedBodies.ts"
import { CircuitBreakers } from "../mirror/CircuitBreaker.ts"
import { PeerMemory } from "../mirror/PeerMemory.ts"
import { PeerThroughput } from "../mirror/PeerThroughput.ts"
import { Evidence } from "../share/Evidence.ts"
import * as CommitWatch from "../verify/CommitWatch.ts"

export interface MirrorParts {
  readonly options: MirrorOptions
  /** Whose word counts for a tag. */
  readonly peerAuth: PeerAuthMode
  /** The id of this node. */
  readonly self: string
  /** Whether nodes take content from each other's downloads in progress. */
  readonly shares: boolean
  /** The leases that this node decides on. */
  readonly leases: Leases
  /** What its sources show it of downloads from upstream. */
  readonly evidence: Evidence
  /** Layers of which this node's containerd fetches parts at once, if it can (`Range: bytes=0-` in its first request). */
  readonly inParts: BoundedMap<string, true>
  /** When waits for a content have ended in vain: this node downloads it itself. As `MonotonicTime.millis` has it. */
  readonly gaveUpAt: BoundedMap<string, number>
  /** Outlives the pulls. */
  readonly scope: Scope.Scope
  readonly router: Router["Service"]
  readonly transport: ProvedTransport.ProvedTransport
  readonly bodies: BufferedBodies.BufferedBodies
  readonly commits: CommitWatch.CommitWatch
  readonly memory: PeerMemory
  readonly throughput: PeerThroughput
  readonly breakers: CircuitBreakers
  readonly schedule: Schedule.Schedule<number, ResolvePolicy.Situation>
}

const maxContents = 256

export const make = Effect.fnUntraced(function*(options: MirrorOptions) {
  const memory = new PeerMemory({
    hedgeMillis: Duration.toMillis(options.hedgeDelay),
    recordMillis: Duration.toMillis(options.recordTtl)
  })
  const { mode } = yield* PeerAuth
  const parts: MirrorParts = {
    options,
    peerAuth: mode,
    self: (yield* (yield* Router).self).id,
    shares: options.inProgress !== "off" && mode !== "off",
    leases: new Leases(options.upstreamConcurrency),
    evidence: new Evidence(),
    inParts: new BoundedMap(maxContents),
    gaveUpAt: new BoundedMap(maxContents),
    scope: yield* Effect.scope,
    router: yield* Router,
    transport: yield* ProvedTransport.make,
    bodies: yield* BufferedBodies.make(options.verifyMemory),
    commits: yield* CommitWatch.make(FileLease.writerOf),
    memory,
    throughput: new PeerThroughput(),
    breakers: new CircuitBreakers({
      failures: options.circuitFailures,
      pauseMillis: Duration.toMillis(options.circuitPause)
    }),
    schedule: ResolvePolicy.schedule({
      resolveTimeout: options.resolveTimeout,
      hedgeDelay: Effect.sync(() => Duration.millis(memory.hedgeDelay.millis))
    })
  }
  return parts
})
