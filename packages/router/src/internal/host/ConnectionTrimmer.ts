/** Closes connections that nobody needs: duplicates of a pair of nodes, and unused ones beyond a bound. */
import type { Connection, Libp2p as Host } from "@libp2p/interface"
import { type Duration, Effect, Schedule } from "effect"

const interval = "10 seconds"

export interface ConnectionTrimmerOptions {
  readonly host: Host
  /** Connections that are held. Beyond it only those to neighbours and those used lately stay open. */
  readonly bound: number
  /** Ids of the peers whose connections are never trimmed. */
  readonly neighbours: () => ReadonlySet<string>
  /** When a peer was last sent a request, in milliseconds since this process began; 0 if never. */
  readonly lastUsed: (id: string) => number
  /** Tells a peer that its connection is about to be closed, and that this node is still there. */
  readonly announceRest: (id: string) => void
}

export class ConnectionTrimmer {
  readonly #options: ConnectionTrimmerOptions
  /** Connections seen by the last `trim`. Two nodes that dial each other may be using both connections for a moment. */
  readonly #seen = new WeakSet<Connection>()

  constructor(options: ConnectionTrimmerOptions) {
    this.#options = options
  }

  /**
   * Closes duplicate connections. Returns the longest unused ones beyond the bound, whose peers have been told: close them
   * a moment later, so that the message arrives first.
   */
  trim(): ReadonlyArray<Connection> {
    const { announceRest, bound, host, lastUsed } = this.#options
    const neighbours = this.#options.neighbours()
    const byPeer = Map.groupBy(
      host.getConnections().filter(({ status }) => status === "open"),
      ({ remotePeer }) => remotePeer.toString()
    )
    for (const connections of byPeer.values()) {
      if (connections.every((connection) => this.#seen.has(connection))) {
        close(duplicatesOf(host.peerId.toString(), connections))
      }
      for (const connection of connections) this.#seen.add(connection)
    }
    const spare = [...byPeer.keys()].filter((id) => !neighbours.has(id)).toSorted((a, b) => lastUsed(a) - lastUsed(b))
    const resting = spare.slice(0, Math.max(0, byPeer.size - bound))
    resting.forEach(announceRest)
    return resting.flatMap((id) => byPeer.get(id) ?? [])
  }

  /** Trims every ten seconds, for ever. `notice` is the time between telling a peer and closing its connection. */
  run(notice: Duration.Duration): Effect.Effect<unknown> {
    return Effect.sync(() => this.trim()).pipe(
      Effect.flatMap((resting) => Effect.delay(Effect.sync(() => close(resting)), notice)),
      Effect.repeat(Schedule.spaced(interval))
    )
  }
}

/** All connections of a pair of nodes except one. Both sides keep the one that the smaller id opened. */
const duplicatesOf = (self: string, connections: ReadonlyArray<Connection>): ReadonlyArray<Connection> => {
  const opener = ({ direction, remotePeer }: Connection) => direction === "outbound" ? self : remotePeer.toString()
  return connections.toSorted((a, b) => opener(a) < opener(b) ? -1 : opener(a) > opener(b) ? 1 : 0).slice(1)
}

/** A connection that does not close properly is gone as well. */
const close = (connections: ReadonlyArray<Connection>): void => {
  for (const connection of connections) void connection.close().catch(() => undefined)
}
