/** How the mirror deals with peers: its limits as flags, and as the options of the registry and of the transport. */
import type { MirrorOptions } from "@spegel-ts/registry/Mirror"
import type { TransportOptions } from "@spegel-ts/transfer/PeerTransport"
import { type Duration, Schema } from "effect"
import type { Command } from "effect/cli"
import { one } from "./Flags.ts"
import { GoDuration, PositiveGoDuration } from "./GoDuration.ts"
import * as GoInteger from "./GoInteger.ts"

const duration = { schema: GoDuration, metavar: "DURATION" }

const wait = { schema: PositiveGoDuration, metavar: "DURATION" }
const bytes = GoInteger.between("a number of bytes", 0, 1024 ** 4)

export const flags = {
  mirrorResolveTimeout: one({
    ...duration,
    name: "mirror-resolve-timeout",
    description: "How long to look for a peer before containerd is sent on to upstream",
    fallback: "20ms"
  }),
  mirrorResolveRetries: one({
    name: "mirror-resolve-retries",
    description: "How many peers to try before containerd is sent on to upstream",
    schema: GoInteger.between("a number of peers", 1, 100),
    fallback: "3",
    metavar: "NUMBER"
  }),
  mirrorFirstByteTimeout: one({
    ...wait,
    name: "mirror-first-byte-timeout",
    description: "How long a peer may take to send the first byte before it is given up",
    fallback: "1s"
  }),
  mirrorHedgeDelay: one({
    ...duration,
    name: "mirror-hedge-delay",
    description:
      "How long a first byte may take before the next peer is asked beside, until 80 % of past first bytes came sooner",
    fallback: "50ms"
  }),
  mirrorAnswerTimeout: one({
    ...wait,
    name: "mirror-answer-timeout",
    description: "How long a HEAD or a manifest may take before containerd is sent on to upstream",
    fallback: "3s"
  }),
  mirrorStallTimeout: one({
    ...wait,
    name: "mirror-stall-timeout",
    description: "How long a peer may send nothing in the middle of a layer before another goes on",
    fallback: "2s"
  }),
  mirrorMinSpeed: one({
    name: "mirror-min-speed",
    description: "Bytes per second that a peer must send over 3 s of being waited for, else another goes on; 0 for any",
    schema: bytes,
    fallback: "524288",
    metavar: "BYTES"
  }),
  mirrorVerify: one({
    name: "mirror-verify",
    description:
      "How blobs are verified that are too large to be held: commit sees whether containerd, which hashes them itself, keeps them; stream hashes them here, too",
    schema: Schema.Literals(["commit", "stream"]),
    fallback: "commit",
    metavar: "commit|stream"
  }),
  mirrorVerifySize: one({
    name: "mirror-verify-size",
    description: "Blobs to this size are verified before any byte of them is answered; manifests always are",
    schema: bytes,
    fallback: "4194304",
    metavar: "BYTES"
  }),
  mirrorVerifyMemory: one({
    name: "mirror-verify-memory",
    description: "Bytes of memory for bodies that are being verified; blobs beyond it are verified as they stream",
    schema: bytes,
    fallback: "67108864",
    metavar: "BYTES"
  }),
  mirrorCircuitFailures: one({
    name: "mirror-circuit-failures",
    description:
      "Requests in a row that waited in vain, after which a registry's peers get little time for a while; 0 for never",
    schema: GoInteger.between("a number of requests", 0, 1000),
    fallback: "5",
    metavar: "NUMBER"
  }),
  mirrorCircuitPause: one({
    ...duration,
    name: "mirror-circuit-pause",
    description: "How long that is at first; twice as long after each try that fails",
    fallback: "10s"
  })
}

export type MirrorSettings = Command.Command.Config.Infer<typeof flags>

export const mirrorOptions = (settings: MirrorSettings, recordTtl: Duration.Duration): MirrorOptions => ({
  resolveTimeout: settings.mirrorResolveTimeout,
  resolveRetries: settings.mirrorResolveRetries,
  firstByteTimeout: settings.mirrorFirstByteTimeout,
  hedgeDelay: settings.mirrorHedgeDelay,
  answerTimeout: settings.mirrorAnswerTimeout,
  verify: settings.mirrorVerify,
  verifySize: settings.mirrorVerifySize,
  verifyMemory: settings.mirrorVerifyMemory,
  circuitFailures: settings.mirrorCircuitFailures,
  circuitPause: settings.mirrorCircuitPause,
  recordTtl
})

export const transportOptions = (settings: MirrorSettings): TransportOptions => ({
  stallTimeout: settings.mirrorStallTimeout,
  minPeerSpeed: settings.mirrorMinSpeed
})
