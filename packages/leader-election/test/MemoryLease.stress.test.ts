import { conformanceTimes, leaderElectionConformance } from "@spegel-ts/leader-election/LeaderElectionConformance"
import * as MemoryLease from "@spegel-ts/leader-election/MemoryLease"
import { Effect } from "effect"

leaderElectionConformance(
  "MemoryLease",
  Effect.map(
    MemoryLease.make(),
    ({ api }) => (identity) => MemoryLease.layer({ api, identity, times: conformanceTimes })
  )
)
