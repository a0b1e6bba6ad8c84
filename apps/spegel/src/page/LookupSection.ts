/** "Who has this image?": a form, and the answer. It is a GET of the page itself, and works without scripts. */
import type { Lookup } from "../views/Lookup.ts"
import { type Html, html, none } from "./Html.ts"
import * as Parts from "./Parts.ts"

const answer = ({ heldHere, key, mayBeMore, nodes, problem }: Lookup): Html => {
  if (key === "") return html`<p class="no">${problem}</p>`
  return html`<p><code class="whole">${key}</code>: ${
    heldHere === null
      ? html`<span class="no">not on this node</span>`
      : html`<span class="yes">on this node</span>, as ${Parts.content(heldHere)}`
  }; ${
    nodes.length === 0 ?
      html`<span class="no">no other node says that it has it</span>` :
      `on ${nodes.length} ${nodes.length === 1 ? "other node" : "other nodes"}${
        mayBeMore ? ", and perhaps on more" : ""
      }:`
  }</p>${problem === "" ? none : html`<p class="no">${problem}</p>`}<p class="tree">${nodes.map(Parts.node)}</p>`
}

export const render = (lookup: Lookup | undefined): Html =>
  html`<form method="get" action="/debug/web/#lookup" role="search"><label for="image">Image or digest</label><input id="image" name="image" required maxlength="480" autocomplete="off" autocapitalize="none" spellcheck="false" placeholder="docker.io/library/nginx:1.29, or sha256:…" value="${
    lookup?.image ?? ""
  }"><button>Who has it?</button></form>${
    lookup === undefined ? none : html`<div role="status">${answer(lookup)}</div>`
  }`
