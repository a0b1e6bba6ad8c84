/** The headline of the page: four figures, and what is wrong. */
import type { Status } from "../views/Status.ts"
import * as Wording from "../views/Wording.ts"
import { type Html, html, none, type Part } from "./Html.ts"

type Mood = "yes" | "no" | "quiet"

const card = (title: string, figure: Part, mood: Mood, ...details: ReadonlyArray<Part>): Html =>
  html`<div class="card"><dt>${title}</dt><dd class="figure ${mood}">${figure}</dd>${
    details.map((detail) => html`<dd>${detail}</dd>`)
  }</div>`

const peersCard = ({ peers, state, stateReason }: Status): Html =>
  card(
    "Peers",
    peers,
    state === "ready" ? "yes" : "no",
    html`<span class="${state === "ready" ? "yes" : "no"}">${state}</span> ${stateReason}`
  )

const protectionCard = ({ isProtected, protection }: Status): Html =>
  isProtected
    ? card("Cluster key", "Protected", "yes", protection)
    : card("Cluster key", "Not protected", "no", protection)

const shareCard = ({ lastHour }: Status): Html => {
  const { bytesFromPeers, fromPeers, leftToUpstream, shareFromPeers } = lastHour
  return card(
    "From peers, last hour",
    shareFromPeers === null ? "no requests" : Wording.percent(shareFromPeers),
    shareFromPeers === null ? "quiet" : "yes",
    shareFromPeers === null
      ? "This node had all that was asked for."
      : `${fromPeers} of ${Wording.count(fromPeers + leftToUpstream, "request")} for what this node lacked`,
    `${Wording.size(bytesFromPeers)} not fetched from upstream`
  )
}

const failuresCard = ({ lastHour: { failed, peersFailed } }: Status): Html =>
  card(
    "Failures, last hour",
    failed,
    failed === 0 ? "yes" : "no",
    failed === 0
      ? "Peers served every request that they began to serve."
      : `${Wording.count(failed, "request")} that peers failed: upstream served the rest`,
    `${Wording.count(peersFailed, "peer")} failed on the way`
  )

const circuits = ({ circuits }: Status): ReadonlyArray<Html> =>
  circuits.map(({ millis, registry }) =>
    html`<p class="no">${registry}: peers kept requests waiting. They get little time ${
      millis === 0 ? "until the next request has tried them" : `for ${Wording.duration(millis)} more`
    }.</p>`
  )

const dataPlane = ({ dataPlane, dataPlaneReason }: Status): string =>
  `Data plane: ${dataPlane}${dataPlaneReason === "" ? "" : `, since ${dataPlaneReason}`}`

const advertised = ({ advertised, advertisedDigests }: Status): Html =>
  html`<p>Advertised: ${Wording.count(advertisedDigests, "digest")}${
    advertised.length === 0 ?
      none :
      html`; ${
        advertised.map(({ images, registry, tags }) =>
          `${registry} ${Wording.count(images, "image")}, ${Wording.count(tags, "tag")}`
        ).join("; ")
      }`
  }.</p>`

export const render = (status: Status): Html =>
  html`<dl class="cards">${peersCard(status)}${protectionCard(status)}${shareCard(status)}${failuresCard(status)}</dl>${
    status.faults.map((fault) => html`<p class="no">${fault}</p>`)
  }${circuits(status)}<p><code>${status.id}</code> at ${
    status.addresses.join(", ") || "no announced address"
  }, registry port ${status.registryPort}. ${dataPlane(status)}.</p>${advertised(status)}`
