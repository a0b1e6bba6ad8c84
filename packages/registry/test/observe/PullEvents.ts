/** Requests that have ended, for tests. */
import type { PullEvent } from "@spegel-ts/registry/PullLog"

/** A GET of this node's client, which was served from here. */
export const event = (facts: Partial<PullEvent>): PullEvent => ({
  time: 0,
  method: "GET",
  mirrored: false,
  registry: "docker.io",
  content: "sha256:1",
  range: undefined,
  source: "local",
  status: 200,
  bytes: 100,
  firstByteMillis: 1,
  millis: 2,
  peersSeen: 0,
  attempts: [],
  peersFailed: 0,
  reason: "",
  ...facts
})
