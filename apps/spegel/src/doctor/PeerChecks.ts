/** Checks of the other nodes: how many are known, have they proved the cluster key, can they be reached, are the clocks alike? */
import { Data, Effect, Option, Redacted, Schema } from "effect"
import { print } from "../cli/ListenAddress.ts"
import { type Check, ok, problem, skipped, warning } from "./Check.ts"
import type { Answerer } from "./MirrorProbe.ts"
import * as MirrorProbe from "./MirrorProbe.ts"

const Peers = Schema.fromJsonString(Schema.Array(Schema.Struct({
  id: Schema.String,
  addresses: Schema.Array(Schema.String),
  servicePort: Schema.Finite,
  self: Schema.optionalKey(Schema.Boolean),
  proved: Schema.optionalKey(Schema.Boolean)
})))

type Peer = (typeof Peers)["Type"][number]

export interface PeerOptions {
  /** The base URL of the metrics address. */
  readonly metricsUrl: string
  /** This node's token, for the debug pages. */
  readonly token: Option.Option<Redacted.Redacted>
  /** Whether members prove themselves. */
  readonly isProving: boolean
  /** What answers at the registry's address. */
  readonly mirror: Answerer
}

/** The peers are not known, for this reason. */
class PeersUnknown extends Data.TaggedError("PeersUnknown")<{ readonly reason: string }> {}

const knownPeers = Effect.fnUntraced(function*({ metricsUrl, token }: PeerOptions) {
  const headers: Record<string, string> = Option.match(token, {
    onNone: () => ({}),
    onSome: (token) => ({ authorization: `Bearer ${Redacted.value(token)}` })
  })
  const { body, status } = yield* Effect.mapError(
    MirrorProbe.get(`${metricsUrl}/debug/peers`, headers),
    ({ reason }) => new PeersUnknown({ reason: `${metricsUrl} does not answer: ${reason}` })
  )
  if (status !== 200) {
    return yield* new PeersUnknown({
      reason:
        `the mirror does not show its peers (status ${status}): --debug-web-enabled=false, or another --metrics-addr`
    })
  }
  const peers = yield* Effect.mapError(
    Schema.decodeEffect(Peers)(body),
    () => new PeersUnknown({ reason: `${metricsUrl} answers with something that is no list of peers` })
  )
  return peers.filter(({ self }) => self !== true)
})

/** At most this many peers are asked. */
const maxAsked = 16

/** A peer that was asked: how far its clock is ahead of this node's, in milliseconds; or why it did not answer. */
interface Asked {
  readonly address: string
  readonly aheadMillis: number | undefined
  readonly reason: string
}

const askPeer = Effect.fnUntraced(function*({ addresses: [host = ""], servicePort }: Peer) {
  const address = print({ host: Option.some(host), port: servicePort })
  const sent = Date.now()
  const answer = yield* Effect.result(MirrorProbe.get(`http://${address}/livez`))
  if (answer._tag === "Failure") return { address, aheadMillis: undefined, reason: answer.failure.reason }
  // The header has whole seconds: on average half a second has passed since.
  const theirs = Date.parse(answer.success.headers.get("date") ?? "") + 500
  const aheadMillis = theirs - (sent + Date.now()) / 2
  return {
    address,
    aheadMillis: Number.isFinite(aheadMillis) ? aheadMillis : undefined,
    reason: "its answer has no date"
  }
})

const peersCheck = (peers: ReadonlyArray<Peer>, asked: ReadonlyArray<Asked>, { isProving }: PeerOptions): Check => {
  const count = `${peers.length} ${peers.length === 1 ? "peer" : "peers"}`
  if (peers.length === 0) {
    return warning(
      "peers",
      "no peers: this node gives images to nobody, and all that it lacks comes from upstream",
      "unless it is the only node: check --bootstrap-kind and its sources, and that nodes reach each other's router port"
    )
  }
  const silent = asked.filter(({ aheadMillis }) => aheadMillis === undefined)
  const unproved = peers.filter(({ proved }) => proved !== true).length
  const [first] = silent
  if (first !== undefined) {
    const verdict = silent.length === asked.length ? problem : warning
    return verdict(
      "peers",
      `${silent.length} of ${asked.length} peers that were asked did not answer on their registry port, such as ${first.address} (${first.reason})`,
      "let nodes reach each other's registry port (network policies, firewalls)"
    )
  }
  return isProving && unproved > 0
    ? warning(
      "peers",
      `${unproved} of ${count} have not proved the cluster key`,
      "give all mirrors the same cluster key"
    )
    : ok("peers", `${count}${isProving ? ", all with the cluster key" : ""}`)
}

/** A difference in seconds that is worth a word. Mirrors work with any: they learn each other's time. */
const remarkable = 30

const clockCheck = (asked: ReadonlyArray<Asked>): Check => {
  const clocks = asked.flatMap(({ address, aheadMillis }) =>
    aheadMillis === undefined ? [] : [{ address, seconds: Math.round(aheadMillis / 1000) }]
  )
  const [furthest] = clocks.toSorted((one, other) => Math.abs(other.seconds) - Math.abs(one.seconds))
  if (furthest === undefined) return skipped("clock", "no peer answered that could be compared")
  const off = Math.abs(furthest.seconds)
  const found = `the clock of ${furthest.address} is ${off} s ${
    furthest.seconds < 0 ? "behind" : "ahead of"
  } this node's`
  return off > remarkable
    ? warning(
      "clock",
      found,
      "keep the clocks of all nodes right, with NTP: logs and traces of several nodes go by them"
    )
    : ok("clock", `within ${off + 1} s of ${clocks.length} of the peers`)
}

const unknown = (reason: string): ReadonlyArray<Check> => [skipped("peers", reason), skipped("clock", reason)]

/** The checks `peers` and `clock`. */
export const check = Effect.fnUntraced(function*(options: PeerOptions) {
  if (options.mirror._tag !== "Mirror") return unknown("the mirror does not answer")
  const peers = yield* knownPeers(options)
  const asked = yield* Effect.forEach(peers.slice(0, maxAsked), askPeer, { concurrency: maxAsked })
  return [peersCheck(peers, asked, options), clockCheck(asked)]
}, Effect.catchTag("PeersUnknown", ({ reason }) => Effect.succeed(unknown(reason))))
