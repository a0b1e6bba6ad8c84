/** A node of the cluster, as a program that wants to fetch from it sees it. */
export interface Peer {
  /** The libp2p peer id in its usual text form (`12D3Koo...`), or any unique name in memory. */
  readonly id: string
  /** IP literals (no brackets, no ports), in the order in which to try them. At least one. */
  readonly addresses: ReadonlyArray<string>
  /** The TCP port of the service that runs beside the peer's router, such as a registry; 0 if it has none. */
  readonly servicePort: number
  /** True if the peer has proved to this node that it knows the cluster key, so that its addresses and port are the key's word. */
  readonly proved?: boolean
  /** The zone that a proved peer is in, such as a data centre. Absent if it names none. */
  readonly zone?: string
}

/** The facts known about a member of the network, for debug pages and metrics. */
export interface PeerFacts extends Peer {
  /** The software that the peer says it runs. Absent if it has not said. */
  readonly agent?: string
  /** Smoothed round trip of answered requests, in milliseconds. Absent before the first answer. */
  readonly roundTripMillis?: number
  /** When the peer was last heard from, in milliseconds since the epoch. Absent if never. */
  readonly lastHeardMillis?: number
}
