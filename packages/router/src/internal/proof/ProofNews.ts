/** Logs which peers did not prove their membership, and why. One line covers many peers; lines are at least ten minutes apart. */
import { Effect, type LogLevel } from "effect"
import { listed } from "../host/NamedPeers.ts"
import { type Failure, type FailureLog, maxCollected } from "./FailureLog.ts"
import { adviceOn, meaningOf } from "./ProofFailure.ts"

const interval = "1 second"
/** Failures are collected for this long. */
const collectMillis = 2000
/** Between two log lines. */
const quietMillis = 10 * 60_000

const described = (failures: ReadonlyArray<Failure>): string => {
  const byReason = Map.groupBy(failures, ({ reason }) => reason)
  const more = failures.length < maxCollected ? "" : " or more"
  const parts = [...byReason].map(([reason, { length }]) => `${meaningOf(reason)} (${length}${more})`)
  return `peers ${parts.join(", ")}${adviceOn([...byReason.keys()])}`
}

const named = (failures: ReadonlyArray<Failure>): string =>
  listed(failures.map(({ address, id, reason }) => `${id} at ${address} (${reason})`))

/** A few peers with another key are a mistake of theirs, and they warn of it themselves: they are the ones that are alone. */
const levelOf = (failures: ReadonlyArray<Failure>, proved: number): LogLevel.Severity =>
  failures.length < proved && failures.every(({ reason }) => reason === "other_key") ? "Info" : "Warn"

/** `proved` is how many peers have proved the key now. Runs until interrupted. */
export const run = Effect.fnUntraced(function*(log: FailureLog, proved: () => number) {
  while (true) {
    yield* Effect.sleep(interval)
    if (log.isEmpty) continue
    yield* Effect.sleep(collectMillis)
    const failures = log.take()
    yield* Effect.logWithLevel(levelOf(failures, proved()))(described(failures)).pipe(
      Effect.annotateLogs({ peers: named(failures) })
    )
    yield* Effect.sleep(quietMillis)
  }
})
