/** The last requests, a line each; a click on one shows its story. */
import * as Outcome from "@spegel-ts/registry/Outcome"
import { type Attempt, isQuestion, type PullEvent } from "@spegel-ts/registry/PullLog"
import type { NodeNames } from "../views/NodeNames.ts"
import * as Wording from "../views/Wording.ts"
import { type Html, html, none } from "./Html.ts"
import * as Parts from "./Parts.ts"

const maxShown = 50

const servedBy = ({ method, mirrored, source, status }: PullEvent, names: NodeNames): string => {
  if (source === "none") return !mirrored && method === "GET" && status === 404 ? "left to upstream" : "nobody"
  return source === "local" ? "this node" : Wording.node(names.byId(source))
}

/** A 404 sends the client on, and a peer that another one served sooner goes away: neither is a failure. */
const moodOf = ({ bytes, mirrored, peersFailed, status }: PullEvent): string => {
  if (mirrored && status === 0 && bytes === 0) return "quiet"
  if (status === 0 || status >= 500 || peersFailed > 0) return "no"
  return status < 300 ? "yes" : "quiet"
}

const status = ({ status }: PullEvent): string => status === 0 ? "cut off" : String(status)

const timeOf = (millis: number): Html => {
  const time = new Date(millis).toISOString()
  return html`<time datetime="${time}" title="${time}">${time.slice(11, 19)}</time>`
}

const line = (pull: PullEvent, names: NodeNames): Html =>
  html`${timeOf(pull.time)} <span class="method">${pull.method}</span> <span class="what">${
    pull.registry === "" || pull.content.startsWith(`${pull.registry}/`)
      ? none
      : html`<span class="registry">${pull.registry} </span>`
  }<code>${Wording.short(pull.content)}</code></span> <span class="by">${servedBy(pull, names)}${
    pull.mirrored ? ", for a peer" : ""
  }</span> <span class="status ${moodOf(pull)}">${status(pull)}</span> <span class="number size">${
    Wording.size(pull.bytes)
  }</span> <span class="number took">${Wording.duration(pull.millis)}</span>`

/** For the eye alone: each line can be understood by itself. */
const heading =
  html`<div class="heading" aria-hidden="true"><span></span><span>Time, UTC</span><span>Method</span><span>Content</span><span>Served by</span><span>Status</span><span class="number">Size</span><span class="number">Took</span></div>`

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

export const render = (all: ReadonlyArray<PullEvent>, names: NodeNames): Html => {
  const pulls = all.filter((pull) => !isQuestion(pull))
  if (pulls.length === 0) return Parts.nothing("No requests yet.")
  const lines = pulls.slice(0, maxShown).map((pull) =>
    html`<li data-key="${idOf(pull)}"><details><summary>${line(pull, names)}</summary>${
      story(pull, names)
    }</details></li>`
  )
  return html`${heading}<ol class="requests">${lines}</ol><p class="quiet">At most the last ${maxShown} requests, without HEAD requests from peers. Those, and older requests, are in <a href="/debug/requests.json">/debug/requests.json</a>.</p>`
}
