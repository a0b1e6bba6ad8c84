/** The faults of a peer, and the requests of a pull that may meet them. */

/** All faults, by the names that reports have for them. */
export const faults = [
  "404",
  "500",
  "503",
  "refuse",
  "never answer",
  "headers then nothing",
  "reset mid-body",
  "FIN mid-body",
  "stall mid-body",
  "vanish",
  "wrong bytes",
  "short body",
  "long body",
  "wrong Content-Type",
  "wrong Content-Length",
  "slow 100 KB/s",
  "restart beside a freeze",
  "clock back 1 h",
  "clock on 1 d"
] as const

export type Fault = typeof faults[number]

/** How far the clock of the mirror's node is set in the middle of a body, in milliseconds. */
export const clockChanges: { readonly [K in Fault]?: number } = {
  "clock back 1 h": -3_600_000,
  "clock on 1 d": 86_400_000
}

/** The requests of a pull, in the order in which containerd makes them; blobs of both sizes partly at once. */
export const requestKinds = ["HEAD tag", "GET manifest", "GET small blob", "GET large layer"] as const

export type RequestKind = typeof requestKinds[number]

/** A mirror verifies blobs up to this size before it sends them; it streams larger ones. */
const maxSmallBlob = 4 * 1024 * 1024

/**
 * The kind of a request for `path` of the distribution API and an object of `size` bytes. The method does not tell: for a HEAD of
 * containerd, a mirror asks its peers for the whole manifest.
 */
export const kindOf = (path: string, size: number): RequestKind =>
  path.includes("/blobs/")
    ? size > maxSmallBlob ? "GET large layer" : "GET small blob"
    : path.includes("/manifests/sha256:")
    ? "GET manifest"
    : "HEAD tag"
