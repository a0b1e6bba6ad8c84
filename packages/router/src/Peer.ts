/** A node of the cluster, as a program that wants to fetch from it sees it. */
export interface Peer {
  /** The libp2p peer id in its usual text form (`12D3Koo...`), or any unique name in memory. */
  readonly id: string
  /** IP literals (no brackets, no ports), the one to try first in front. At least one. */
  readonly addresses: ReadonlyArray<string>
  /** The TCP port on which the peer's registry listens. */
  readonly servicePort: number
}

/** What is known of a member of the network, for debug pages and metrics. */
export interface PeerFacts extends Peer {
  /** The agent the peer calls itself, where it has told. */
  readonly agent?: string
  /** Round trip of the last answered request, in milliseconds. */
  readonly roundTripMillis?: number
  /** When the peer was last heard, in milliseconds since the epoch. */
  readonly lastHeardMillis?: number
}
