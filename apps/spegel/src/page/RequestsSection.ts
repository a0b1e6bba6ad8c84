/** The last requests, a line each; a click on one shows its story. */
import * as Outcome from "@spegel-ts/registry/Outcome"
import type { Attempt, PullEvent } from "@spegel-ts/registry/PullLog"
import type { NodeNames } from "../views/NodeNames.ts"
import * as Wording from "../views/Wording.ts"
import { type Html, html, none } from "./Html.ts"
import * as Parts from "./Parts.ts"

export const maxShown = 100

const servedBy = ({ source }: PullEvent, names: NodeNames): string => {
  if (source === "none") return "nobody"
  return source === "local" ? "this node" : Wording.node(names.byId(source))
}

const isBad = ({ peersFailed, status }: PullEvent): boolean => status === 0 || status >= 500 || peersFailed > 0

const status = ({ status }: PullEvent): string => status === 0 ? "cut off" : String(status)

const timeOf = (millis: number): Html => {
  const time = new Date(millis).toISOString()
  return html`<time datetime="${time}" title="${time}">${time.slice(11, 19)}</time>`
}

const line = (pull: PullEvent, names: NodeNames): Html =>
  html`${timeOf(pull.time)} <span>${pull.method}</span> <span class="what">${
    pull.registry === "" ? none : html`<span class="registry">${pull.registry} </span>`
  }<code>${Wording.short(pull.content)}</code></span> <span class="by">${pull.mirrored ? "a peer asked: " : ""}${
    servedBy(pull, names)
  }</span> <span class="status ${isBad(pull) ? "no" : "yes"}">${status(pull)}</span> <span class="number">${
    Wording.size(pull.bytes)
  }</span> <span class="number">${Wording.duration(pull.millis)}</span>`

/** One peer's part in a request: what it was asked for, how it answered, and the outcome. */
const attempts = (pull: PullEvent): Html =>
  Parts.table<Attempt>("Peers of this request", [
    { name: "Peer", of: ({ address, hedge }) => `${address}${hedge ? ", hedged" : ""}` },
    { name: "From byte", of: ({ start }) => start, isNumber: true },
    { name: "Bytes", of: ({ bytes }) => Wording.size(bytes), isNumber: true },
    {
      name: "First byte after",
      of: ({ firstByteMillis }) => firstByteMillis === undefined ? "–" : Wording.duration(firstByteMillis),
      isNumber: true
    },
    { name: "Outcome", of: ({ outcome }) => Outcome.print(outcome) }
  ], pull.attempts)

const fact = (name: string, value: Html | string): Html => html`<div><dt>${name}</dt><dd>${value}</dd></div>`

const story = (pull: PullEvent, names: NodeNames): Html =>
  html`<dl class="facts">${fact("Content", html`<code class="whole">${pull.content}</code>`)}${
    pull.registry === "" ? none : fact("Registry", pull.registry)
  }${pull.range === undefined ? none : fact("Range", pull.range)}${
    fact("Asked by", pull.mirrored ? "a peer" : "a client of this node")
  }${fact("Served by", servedBy(pull, names))}${fact("Head ready after", Wording.duration(pull.firstByteMillis))}${
    fact("Peers found", String(pull.peersSeen))
  }${pull.reason === "" ? none : fact("What happened", pull.reason)}</dl>${
    pull.attempts.length === 0 ? none : attempts(pull)
  }`

/** What distinguishes a row from all others, so that it stays open when it moves down. */
const idOf = (pull: PullEvent): string => `${pull.time}-${pull.content}-${pull.range ?? ""}-${pull.millis}`

export const render = (pulls: ReadonlyArray<PullEvent>, names: NodeNames): Html =>
  pulls.length === 0 ?
    Parts.nothing("No requests yet.") :
    html`<ol class="requests">${
      pulls.slice(0, maxShown).map((pull) =>
        html`<li data-key="${idOf(pull)}"><details><summary>${line(pull, names)}</summary>${
          story(pull, names)
        }</details></li>`
      )
    }</ol>`
