/** The ports on which a mirror listens. */
import { Effect } from "effect"
import { freePort } from "../network/FreePort.ts"

export interface MirrorPorts {
  readonly registry: number
  readonly router: number
  readonly metrics: number
}

/** Free ports; mirrors whose addresses differ can share them, as pods on different nodes do. */
export const free = Effect.all({ registry: freePort, router: freePort, metrics: freePort })

/** The flags with which `spegel registry` listens on `address` with these ports. */
export const flags = (address: string, { metrics, registry, router }: MirrorPorts): ReadonlyArray<string> => [
  `--registry-addr=${address}:${registry}`,
  `--router-addr=${address}:${router}`,
  `--metrics-addr=${address}:${metrics}`
]
