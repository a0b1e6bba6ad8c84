/** How the mirror treats peers: its limits as settings, and as the options of the registry and of the transport. */
import type { MirrorOptions } from "@spegel-ts/registry/Mirror"
import type { TransportOptions } from "@spegel-ts/transfer/PeerTransport"
import { type Duration, Schema } from "effect"
import * as GoInteger from "../cli/GoInteger.ts"
import { one, type Values } from "../cli/Setting.ts"
import { duration, positiveDuration } from "./SharedSettings.ts"

const bytes = { schema: GoInteger.between("a number of bytes", 0, 1024 ** 4), metavar: "BYTES" }

export const mirrorSettings = {
  mirrorResolveTimeout: one({
    ...duration,
    description: "How long to look for a peer before the request falls back to upstream",
    fallback: "20ms"
  }),
  mirrorResolveRetries: one({
    description: "How many peers to try before the request falls back to upstream",
    schema: GoInteger.between("a number of peers", 1, 100),
    fallback: "3",
    metavar: "NUMBER"
  }),
  mirrorFirstByteTimeout: one({
    ...positiveDuration,
    description: "How long to wait for a peer's first byte before giving that peer up",
    fallback: "1s"
  }),
  mirrorHedgeDelay: one({
    ...duration,
    description:
      "How long to wait for a first byte before also asking the next peer; later the 80th percentile of observed first-byte times",
    fallback: "50ms"
  }),
  mirrorAnswerTimeout: one({
    ...positiveDuration,
    description: "How long a HEAD or a manifest may take before the request falls back to upstream",
    fallback: "3s"
  }),
  mirrorStallTimeout: one({
    ...positiveDuration,
    description: "How long a peer may send nothing in the middle of a layer before another peer continues it",
    fallback: "2s"
  }),
  mirrorMinSpeed: one({
    ...bytes,
    description:
      "Bytes per second below which another peer continues a layer, measured over 3 s of waiting; 0 for no limit",
    fallback: "524288"
  }),
  inProgress: one({
    description:
      "Whether nodes take layers from each other's downloads in progress: share does; single-flight also lets one node download what many want at once; off does not. Needs the cluster key",
    schema: Schema.Literals(["off", "share", "single-flight"]),
    fallback: "single-flight",
    metavar: "off|share|single-flight"
  }),
  inProgressWait: one({
    ...duration,
    description:
      "How long to wait without a byte for another node's download that goes on, before the request falls back to upstream",
    fallback: "10s"
  }),
  upstreamConcurrency: one({
    description: "With --in-progress=single-flight: how many nodes download the same content from upstream at once",
    schema: GoInteger.between("a number of nodes", 1, 100),
    fallback: "1",
    metavar: "NUMBER"
  }),
  mirrorVerify: one({
    description:
      "How to verify blobs that are too large to be held in memory: commit watches whether containerd, which hashes them itself, keeps them; stream also hashes them here",
    schema: Schema.Literals(["commit", "stream"]),
    fallback: "commit",
    metavar: "commit|stream"
  }),
  mirrorVerifySize: one({
    ...bytes,
    description: "Blobs up to this size are verified before a byte of them is sent; manifests always are",
    fallback: "4194304"
  }),
  mirrorVerifyMemory: one({
    ...bytes,
    description: "Memory in bytes for bodies that are being verified; blobs beyond it are verified as they stream",
    fallback: "67108864"
  }),
  mirrorCircuitFailures: one({
    description:
      "Consecutive requests that waited in vain before the circuit opens: the registry's peers then get little time for a while; 0 to disable",
    schema: GoInteger.between("a number of requests", 0, 1000),
    fallback: "5",
    metavar: "NUMBER"
  }),
  mirrorCircuitPause: one({
    ...duration,
    description: "How long the circuit stays open at first; doubles with each trial that fails",
    fallback: "10s"
  })
}

export type MirrorSettings = Values<typeof mirrorSettings>

/** The settings of the registry; `recordTtl` is how long records of peers are believed. */
export const mirrorOptions = (settings: MirrorSettings, recordTtl: Duration.Duration): MirrorOptions => ({
  resolveTimeout: settings.mirrorResolveTimeout,
  resolveRetries: settings.mirrorResolveRetries,
  firstByteTimeout: settings.mirrorFirstByteTimeout,
  hedgeDelay: settings.mirrorHedgeDelay,
  answerTimeout: settings.mirrorAnswerTimeout,
  inProgress: settings.inProgress,
  inProgressWait: settings.inProgressWait,
  upstreamConcurrency: settings.upstreamConcurrency,
  verify: settings.mirrorVerify,
  verifySize: settings.mirrorVerifySize,
  verifyMemory: settings.mirrorVerifyMemory,
  circuitFailures: settings.mirrorCircuitFailures,
  circuitPause: settings.mirrorCircuitPause,
  recordTtl
})

/** The settings of connections to peers. */
export const transportOptions = (settings: MirrorSettings): TransportOptions => ({
  stallTimeout: settings.mirrorStallTimeout,
  minPeerSpeed: settings.mirrorMinSpeed
})
