/** What happens to the node that downloads from upstream, once it has a part of the image. */
import * as Subprocess from "@spegel-ts/testing/process/Subprocess"
import { Effect } from "effect"
import type { Mirrors, Scenario } from "./herd.ts"
import type { HerdNode } from "./HerdNode.ts"
import type { HerdUpstream } from "./HerdUpstream.ts"

interface Victim {
  readonly node: HerdNode
  readonly mirrors: Mirrors
  readonly upstream: HerdUpstream
}

interface Fault {
  /** Whether its own pull is not expected to succeed. */
  readonly isLost: boolean
  readonly strike: (victim: Victim) => Effect.Effect<unknown, unknown>
}

const killMirror = ({ mirrors, node }: Victim) => {
  const child = mirrors.children.get(node)
  return child === undefined ? Effect.void : Subprocess.kill(child)
}

const faults = {
  "node gone": {
    isLost: true,
    strike: (victim) =>
      victim.node.unplug.pipe(Effect.andThen(killMirror(victim)), Effect.andThen(victim.node.containerd.kill))
  },
  "containerd killed": { isLost: true, strike: ({ node }) => node.containerd.kill },
  "mirror killed": { isLost: false, strike: killMirror },
  "mirror restarted": {
    isLost: false,
    strike: (victim) => Effect.andThen(killMirror(victim), victim.mirrors.restart(victim.node))
  },
  "mirror frozen": {
    isLost: false,
    strike: ({ mirrors, node }) => Effect.sync(() => mirrors.children.get(node)?.kill("SIGSTOP"))
  },
  "its upstream stalls": { isLost: true, strike: ({ node, upstream }) => upstream.stall(node.address) }
} satisfies Record<string, Fault>

export type FaultName = keyof typeof faults
export const names = Object.keys(faults) as ReadonlyArray<FaultName>

/** The part of the image after which a fault strikes. */
export const struckAfter = 0.3

export const isFault = (scenario: Scenario): scenario is FaultName => names.some((name) => name === scenario)

/** Whether the pull of the node that is struck is not expected to succeed. */
export const isLost = (scenario: Scenario): boolean => isFault(scenario) && faults[scenario].isLost

export const strike = (name: FaultName, victim: Victim): Effect.Effect<unknown, unknown> => faults[name].strike(victim)

type Bytes = Readonly<Record<string, number>>

/** The node to which the registry has sent most since `before`. */
export const leaderOf = (nodes: ReadonlyArray<HerdNode>, before: Bytes, now: Bytes): HerdNode => {
  const got = ({ address }: HerdNode) => (now[address] ?? 0) - (before[address] ?? 0)
  return nodes.reduce((one, other) => got(other) > got(one) ? other : one)
}
