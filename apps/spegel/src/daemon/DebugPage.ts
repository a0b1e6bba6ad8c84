/** The page at `/debug/web/`: this node, its peers, what it advertises, and its last requests with their outcomes. */
import type { PeerAuthMode } from "@spegel-ts/cluster-key/PeerAuth"
import * as Digest from "@spegel-ts/oci/Digest"
import * as Outcome from "@spegel-ts/registry/Outcome"
import type { Attempt, PullEvent } from "@spegel-ts/registry/PullLog"
import type { Peer, PeerFacts } from "@spegel-ts/router/Peer"
import type { Standing } from "@spegel-ts/router/Router"
import type { Snapshot } from "@spegel-ts/state-tracker/StateTracker"
import type { DataPlane } from "@spegel-ts/transfer/DataPlane"

export interface DebugFacts {
  readonly version: string
  readonly plane: DataPlane
  readonly standing: Standing
  readonly peerAuth: PeerAuthMode
  /** Reasons why containerd does not use this mirror, or keeps no layers for peers. */
  readonly faults: ReadonlyArray<string>
  readonly self: Peer
  readonly peers: ReadonlyArray<PeerFacts>
  readonly snapshot: Snapshot
  readonly pulls: ReadonlyArray<PullEvent>
}

const escapes = new Map([["&", "&amp;"], ["<", "&lt;"], [">", "&gt;"], ["\"", "&quot;"], ["'", "&#39;"]])
const escape = (text: string): string => text.replace(/[&<>"']/g, (character) => escapes.get(character) ?? "")

const table = (head: ReadonlyArray<string>, rows: ReadonlyArray<ReadonlyArray<string | number>>, none: string) => {
  const row = (tag: string, cells: ReadonlyArray<string | number>) =>
    `<tr>${cells.map((cell) => `<${tag}>${escape(String(cell))}</${tag}>`).join("")}</tr>`
  return rows.length === 0
    ? `<p>${escape(none)}</p>`
    : `<table><thead>${row("th", head)}</thead><tbody>${rows.map((cells) => row("td", cells)).join("")}</tbody></table>`
}

const size = (bytes: number): string =>
  bytes < 1024
    ? `${bytes} B`
    : bytes < 1024 ** 2
    ? `${(bytes / 1024).toFixed(1)} KiB`
    : `${(bytes / 1024 ** 2).toFixed(1)} MiB`

/** One peer's part in a request: what it was asked for, how it answered, and the outcome. */
const attempt = ({ address, bytes, firstByteMillis, hedge, outcome, start }: Attempt): string =>
  [
    address,
    ...(start > 0 ? [`from byte ${start}`] : []),
    ...(hedge ? ["hedged"] : []),
    ...(firstByteMillis === undefined ? [] : [`${size(bytes)}, first after ${firstByteMillis} ms`]),
    Outcome.print(outcome)
  ].join(", ")

const style =
  `body{font:14px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:75rem;padding:0 1rem;color:#1d2433;background:#fff}
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #e3e6ec;vertical-align:top}
td{overflow-wrap:anywhere;white-space:pre-line}th{color:#5a6478;font-weight:600;white-space:nowrap}code{font-size:13px}.no{color:#b3261e}.yes{color:#1b7f3b}
@media(prefers-color-scheme:dark){body{color:#e4e7ee;background:#14171f}th{color:#9aa4b8}th,td{border-color:#2a3040}}`

/** Whether this node serves others, in words. */
const standingText = (standing: Standing): string => {
  switch (standing._tag) {
    case "Joining":
      return `<span class="no">not ready</span> ${escape(standing.reason)}`
    case "Joined":
      return `<span class="yes">ready</span>`
    case "Alone":
      return `<span class="no">ready, alone</span> ${escape(standing.reason)}`
  }
}

const countOf = (peers: number): string => `${peers} ${peers === 1 ? "peer" : "peers"}`

/** Whether peers have proved that they have the cluster key, in words. */
const protectionText = (mode: PeerAuthMode, peers: ReadonlyArray<PeerFacts>): string => {
  if (mode === "off") {
    return `<span class="no">Not protected:</span> whoever reaches the router's port is a peer (--peer-auth=off)`
  }
  const unproved = peers.filter(({ proved }) => proved !== true).length
  const all = peers.length === 0 ? "no peers yet" : peers.length === 1 ? "the one peer" : `all ${countOf(peers.length)}`
  return unproved === 0
    ? `<span class="yes">Protected:</span> ${all} (--peer-auth=${mode})`
    : `<span class="no">Not protected:</span> ${unproved} of ${countOf(peers.length)} ${
      unproved === 1 ? "has" : "have"
    } not proved the cluster key (--peer-auth=${mode})`
}

/** The whole page, without scripts; a browser reloads it every five seconds. */
export const render = (facts: DebugFacts): string => {
  const { faults, peerAuth, peers, plane, pulls, standing, self, snapshot, version } = facts
  const advertised = [...snapshot.tags].map(([registry, tags]) => [registry, snapshot.images.get(registry) ?? 0, tags])
  return `<!doctype html><html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="5">
<meta name="viewport" content="width=device-width"><title>spegel-ts ${
    escape(self.addresses[0] ?? "")
  }</title><style>${style}</style></head><body>
<h1>spegel-ts ${escape(version)}</h1><p>${standingText(standing)}</p>
<p>${protectionText(peerAuth, peers)}</p>
${faults.map((fault) => `<p class="no">${escape(fault)}</p>`).join("")}
<p><code>${escape(self.id)}</code> at ${
    escape(self.addresses.join(", ") || "no announced address")
  }, registry port ${self.servicePort}</p>
<p>Data plane: ${escape(plane.name)}${plane.reason === undefined ? "" : `, since ${escape(plane.reason)}`}</p>
<h2>Advertised</h2><p>${snapshot.digests} digests</p>
${table(["Registry", "Images", "Tags"], advertised, "This node holds no named images.")}
<h2>Peers (${peers.length})</h2>
${
    table(
      ["Id", "Addresses", "Agent", "Cluster key"],
      peers.map((peer) => [
        peer.id,
        peer.addresses.join(", "),
        peer.agent ?? "",
        peerAuth === "off" ? "not asked for" : peer.proved === true ? "proved" : "not proved"
      ]),
      "No peers are connected: this node serves only what it holds, and everything else comes from upstream."
    )
  }
<h2>Last requests</h2>
${
    table(
      [
        "Time",
        "Request",
        "Content",
        "Served by",
        "Status",
        "Size",
        "First byte, ms",
        "Total, ms",
        "Peers",
        "What happened"
      ],
      pulls.slice(0, 100).map((pull) => [
        new Date(pull.time).toISOString(),
        `${pull.method}${pull.range === undefined ? "" : ` ${pull.range}`}`,
        Digest.isDigest(pull.content) ? `${pull.registry} ${pull.content}` : pull.content,
        pull.source,
        pull.status === 0 ? "cut off" : pull.status,
        size(pull.bytes),
        pull.firstByteMillis,
        pull.millis,
        pull.peersSeen,
        [...pull.attempts.map(attempt), pull.reason].filter((text) => text !== "").join("\n")
      ]),
      "No requests yet."
    )
  }
</body></html>`
}
