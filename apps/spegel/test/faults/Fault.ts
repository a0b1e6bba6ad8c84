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
  "slow 100 KB/s"
] as const

export type Fault = typeof faults[number]

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
