/** Logs which peers joined and left. One line covers many peers, and lines are at least ten seconds apart. */
import * as MonotonicTime from "@spegel-ts/background/MonotonicTime"
import { Effect } from "effect"
import { listed } from "./NamedPeers.ts"

/** A member as the log names it. */
export interface NamedPeer {
  readonly id: string
  readonly address: string
}

export interface PeerNewsOptions {
  /** Changes with the set of members that were heard from; 0 for none. Cheaper than reading all of them each second. */
  readonly fingerprint: () => number
  /** The members that were heard from. */
  readonly peers: () => ReadonlyArray<NamedPeer>
}

const interval = "1 second"
/** A change that goes on is logged after this long, though more may follow. */
const maxWaitMillis = 5000
/** Between two log lines. */
const quietMillis = 10_000

const named = (peers: ReadonlyArray<NamedPeer>): string => listed(peers.map(({ address, id }) => `${id} at ${address}`))

const plural = (count: number): string => count === 1 ? "1 peer" : `${count} peers`

const describe = (before: number, now: number, came: number, went: number): string => {
  if (before === 0) return `joined with ${plural(now)}`
  const parts = [came === 0 ? "" : `${plural(came)} came`, went === 0 ? "" : `${plural(went)} went`]
  return parts.filter((part) => part !== "").join(", ")
}

/** Runs until interrupted. */
export const run = Effect.fnUntraced(function*({ fingerprint, peers }: PeerNewsOptions) {
  let told = new Map<string, NamedPeer>()
  let toldFingerprint = 0
  let seen = toldFingerprint
  let changedAt: number | undefined
  let quietUntil = -Infinity
  while (true) {
    yield* Effect.sleep(interval)
    const now = yield* MonotonicTime.millis
    const current = fingerprint()
    const settled = current === seen
    seen = current
    if (current === toldFingerprint) {
      changedAt = undefined
      continue
    }
    changedAt ??= now
    if (now < quietUntil || (!settled && now - changedAt < maxWaitMillis)) continue
    const members = new Map(peers().map((peer) => [peer.id, peer]))
    const came = [...members.values()].filter(({ id }) => !told.has(id))
    const went = [...told.values()].filter(({ id }) => !members.has(id))
    if (came.length + went.length > 0) {
      yield* Effect.logInfo(describe(told.size, members.size, came.length, went.length)).pipe(Effect.annotateLogs({
        peers: members.size,
        ...(came.length === 0 ? {} : { came: named(came) }),
        ...(went.length === 0 ? {} : { went: named(went) })
      }))
      quietUntil = now + quietMillis
    }
    told = members
    toldFingerprint = current
    changedAt = undefined
  }
})
