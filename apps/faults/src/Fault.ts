/** What may be wrong with a peer, and with which of a pull's requests. */

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

/** By how many milliseconds the clock of the mirror's node is set in the middle of a body. */
export const clockChanges: { readonly [K in Fault]?: number } = {
  "clock back 1 h": -3_600_000,
  "clock on 1 d": 86_400_000
}

/** The requests of a pull, in the order in which containerd makes them; blobs of both sizes partly at once. */
export const requestKinds = ["HEAD tag", "GET manifest", "GET small blob", "GET large layer"] as const

export type RequestKind = typeof requestKinds[number]

/** Above this mirrors stream a blob, up to it they check it first. */
const maxSmallBlob = 4 * 1024 * 1024

/**
 * What a request for `path` of the distribution API is, for an object of `size` bytes. A mirror asks its peers for the
 * whole manifest where containerd asks with HEAD, so the method does not tell.
 */
export const kindOf = (path: string, size: number): RequestKind =>
  path.includes("/blobs/")
    ? size > maxSmallBlob ? "GET large layer" : "GET small blob"
    : path.includes("/manifests/sha256:")
    ? "GET manifest"
    : "HEAD tag"
