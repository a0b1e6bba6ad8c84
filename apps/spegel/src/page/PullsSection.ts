/** The images that are being pulled, each blob with its bar and its part of the tree. */
import type { Blob, Pull } from "../views/Pulls.ts"
import * as Wording from "../views/Wording.ts"
import { type Html, html, none } from "./Html.ts"
import * as Parts from "./Parts.ts"

const arrow = html`<span class="arrow" aria-hidden="true">→</span><span class="hidden"> to </span>`

const source = (blob: Blob): Html =>
  blob.source === "peers" && blob.from.length > 0
    ? html`${blob.from.map(Parts.node)}`
    : html`<span class="node ${blob.source}">${Wording.source(blob)}</span>`

/** From whom, and to whom it goes on as it grows. */
const tree = (blob: Blob): Html =>
  html`<p class="tree">${source(blob)}${arrow}<span class="node self">this node</span>${
    blob.to.length === 0 ? none : html`${arrow}${blob.to.map(Parts.node)}`
  }</p>`

const row = (blob: Blob): Html =>
  html`<li><div class="blob">${Parts.content(blob.content)}${
    Parts.bar(`Progress of ${Wording.short(blob.content)}`, blob.written, blob.size)
  }<span class="amount">${Wording.progress(blob.written, blob.size)}</span></div>${tree(blob)}</li>`

const sums = ({ blobs }: Pull): string => {
  const known = blobs.filter(({ size }) => size !== null)
  const written = known.reduce((sum, blob) => sum + blob.written, 0)
  return Wording.progress(written, known.reduce((sum, { size }) => sum + (size ?? 0), 0))
}

export const render = (pulls: ReadonlyArray<Pull>): Html =>
  pulls.length === 0 ?
    Parts.nothing("Nothing is being pulled.") :
    html`${
      pulls.map((pull) =>
        html`<h3>${pull.image === "" ? "An image that the mirror was not asked for" : pull.image} <small>${
          sums(pull)
        }</small></h3><ul class="blobs">${pull.blobs.map(row)}</ul>`
      )
    }`
