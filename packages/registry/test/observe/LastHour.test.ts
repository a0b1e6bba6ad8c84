import { assert, describe, it } from "@effect/vitest"
import { LastHour } from "@spegel-ts/registry/internal/observe/LastHour"
import { Outcome } from "@spegel-ts/registry/Outcome"
import { event } from "./PullEvents.ts"

const minute = 60_000

const attempt = (bytes: number) => ({
  peer: "other",
  address: "10.0.0.2:5000",
  start: 0,
  hedge: false,
  firstByteMillis: 1,
  bytes,
  outcome: Outcome.Served()
})

describe("LastHour", () => {
  it("tells what peers served from what was left to upstream, and what was sent to peers", () => {
    const hour = new LastHour()
    hour.add(event({ source: "other" }), 0)
    hour.add(event({ source: "other", status: 0, attempts: [attempt(30), attempt(10)], peersFailed: 1 }), 0)
    hour.add(event({ source: "none", status: 404, peersFailed: 2 }), 0)
    hour.add(event({ source: "none", status: 404 }), 0)
    hour.add(event({}), 0)
    hour.add(event({ mirrored: true, bytes: 7 }), 0)
    hour.add(event({ mirrored: true, source: "none", status: 404 }), 0)
    hour.add(event({ method: "HEAD", source: "other" }), 0)
    assert.deepStrictEqual(hour.totals(0), {
      fromPeers: 2,
      bytesFromPeers: 140,
      leftToUpstream: 2,
      failed: 2,
      peersFailed: 3,
      sentToPeers: 1,
      bytesSentToPeers: 7
    })
  })

  it("forgets each minute after an hour", () => {
    const hour = new LastHour()
    hour.add(event({ source: "other" }), 10 * minute)
    hour.add(event({ source: "other" }), 11 * minute)
    assert.strictEqual(hour.totals(69 * minute + 59_999).fromPeers, 2)
    assert.strictEqual(hour.totals(70 * minute).fromPeers, 1)
    assert.strictEqual(hour.totals(500 * minute).fromPeers, 0)
    hour.add(event({ source: "other" }), 70 * minute)
    assert.strictEqual(hour.totals(70 * minute).fromPeers, 2)
  })
})
