/** The members of the network. */
import type { PeerView } from "../views/Peers.ts"
import * as Wording from "../views/Wording.ts"
import { type Html, html } from "./Html.ts"
import * as Parts from "./Parts.ts"

const maxShown = 200

export interface PeersShown {
  readonly peers: ReadonlyArray<PeerView>
  readonly now: number
  /** Whether peers are asked to prove that they have the cluster key. */
  readonly asksForKey: boolean
}

const pause = ({ pausedBecause, pausedMillis }: PeerView): Html | string =>
  pausedBecause === undefined
    ? "asked"
    : html`<span class="no">asked after others</span>: it ${pausedBecause}${
      pausedMillis === undefined ? "" : ` (${Wording.duration(pausedMillis)} more)`
    }`

export const render = ({ asksForKey, now, peers }: PeersShown): Html => {
  if (peers.length === 0) {
    return Parts.nothing(
      "No peers are connected: this node serves only what it holds, and everything else comes from upstream."
    )
  }
  const key = ({ proved }: PeerView) => {
    if (!asksForKey) return "not asked for"
    return proved === true ? html`<span class="yes">proved</span>` : html`<span class="no">not proved</span>`
  }
  return html`${
    Parts.table<PeerView>("Peers", [
      {
        name: "Address",
        of: ({ addresses, id }) => html`<span title="${id}">${addresses.join(", ")}</span>`
      },
      { name: "Zone", of: ({ zone }) => zone ?? "–" },
      {
        name: "Round trip",
        of: ({ roundTripMillis }) => roundTripMillis === undefined ? "–" : `${roundTripMillis.toFixed(1)} ms`,
        isNumber: true
      },
      {
        name: "Last heard",
        of: ({ lastHeardMillis }) => lastHeardMillis === undefined ? "never" : Wording.ago(now - lastHeardMillis)
      },
      { name: "Cluster key", of: key },
      { name: "For pulls", of: pause },
      { name: "Id", of: ({ id }) => html`<code class="digest" title="${id} (a click selects it)">${id}</code>` },
      { name: "Agent", of: ({ agent }) => agent ?? "–" }
    ], peers.slice(0, maxShown))
  }${Parts.more(maxShown, peers.length, "/debug/peers.json")}`
}
