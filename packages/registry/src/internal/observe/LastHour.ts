/** Sums over the requests of the last hour, minute by minute. */
import type { HourTotals, PullEvent } from "../../PullLog.ts"

const minutes = 60
const minuteMillis = 60_000

type Sums = { -readonly [K in keyof HourTotals]: HourTotals[K] }

const none = (): Sums => ({
  fromPeers: 0,
  bytesFromPeers: 0,
  leftToUpstream: 0,
  failed: 0,
  peersFailed: 0,
  sentToPeers: 0,
  bytesSentToPeers: 0
})

/** Body bytes that peers gave: some of them if the request was cut off. */
const bytesFromPeers = ({ attempts, bytes, status }: PullEvent): number =>
  status === 0 ? Math.min(bytes, attempts.reduce((sum, attempt) => sum + attempt.bytes, 0)) : bytes

/** Whether peers failed to serve a request, from the start or half way. */
export const isFailed = ({ peersFailed, status }: PullEvent): boolean =>
  peersFailed > 0 && (status === 0 || status >= 400)

const add = (sums: Sums, event: PullEvent): void => {
  const { bytes, method, mirrored, peersFailed, source, status } = event
  if (method !== "GET") return
  if (mirrored) {
    if (source !== "local" || status === 0) return
    sums.sentToPeers++
    sums.bytesSentToPeers += bytes
    return
  }
  sums.peersFailed += peersFailed
  if (isFailed(event)) sums.failed++
  if (source === "none") sums.leftToUpstream += status === 404 ? 1 : 0
  else if (source !== "local") {
    sums.fromPeers++
    sums.bytesFromPeers += bytesFromPeers(event)
  }
}

export class LastHour {
  /** By the minute of the request's end, modulo an hour. */
  readonly #buckets: Array<{ minute: number; sums: Sums } | undefined> = []

  /** `now` is in milliseconds, by a clock that is not set. */
  add(event: PullEvent, now: number): void {
    const minute = Math.floor(now / minuteMillis)
    const known = this.#buckets[minute % minutes]
    const bucket = known?.minute === minute ? known : { minute, sums: none() }
    this.#buckets[minute % minutes] = bucket
    add(bucket.sums, event)
  }

  /** The sums of this minute and the 59 before it. */
  totals(now: number): HourTotals {
    const minute = Math.floor(now / minuteMillis)
    const total = none()
    for (const bucket of this.#buckets) {
      if (bucket === undefined || minute - bucket.minute >= minutes) continue
      for (const key of Object.keys(total) as ReadonlyArray<keyof Sums>) total[key] += bucket.sums[key]
    }
    return total
  }
}
