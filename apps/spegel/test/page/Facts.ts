/** What a node knows, for tests of its views. */
import { LastHour } from "@spegel-ts/registry/internal/observe/LastHour"
import { Standing } from "@spegel-ts/router/Router"
import type { Facts } from "@spegel-ts/spegel/views/Facts"

export const factsOf = (facts: Partial<Facts> = {}): Facts => ({
  now: 0,
  version: "1",
  plane: { name: "portable", reason: undefined },
  standing: Standing.Joined({ peers: 3 }),
  peerAuth: "require",
  faults: [],
  self: { id: "self", addresses: ["10.0.0.1"], servicePort: 5000 },
  peers: [],
  advertised: { tags: new Map(), images: new Map(), digests: 0 },
  activity: { requests: [], downloads: [], circuits: [], paused: [] },
  lastHour: new LastHour().totals(0),
  pulls: [],
  ...facts
})
