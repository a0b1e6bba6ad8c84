import { conformanceTimes, leaderElectionConformance } from "@spegel-ts/leader-election/LeaderElectionConformance"
import * as MemoryLease from "@spegel-ts/leader-election/MemoryLease"
import { Effect } from "effect"

leaderElectionConformance(
  "MemoryLease",
  Effect.map(
    MemoryLease.make(),
    (lease) => (identity) => MemoryLease.layer({ lease, identity, times: conformanceTimes })
  )
)
