/** "Who has this image?": a form, and the answer. It is a GET of the page itself, and works without scripts. */
import type { Lookup } from "../views/Lookup.ts"
import * as Wording from "../views/Wording.ts"
import { type Html, html, none } from "./Html.ts"
import * as Parts from "./Parts.ts"

const others = ({ mayBeMore, nodes }: Lookup): Html =>
  nodes.length === 0
    ? html`<p class="no">No other node says that it has it.</p>`
    : html`<p><span class="yes">On ${Wording.count(nodes.length, "other node")}</span>${
      mayBeMore ? ", and perhaps on more" : ""
    }:</p><p class="tree">${nodes.map(Parts.node)}</p>`

const answer = (lookup: Lookup): Html => {
  const { heldHere, key, problem } = lookup
  const trouble = problem === "" ? none : html`<p class="no">${problem}</p>`
  if (key === "") return trouble
  const here = heldHere === null
    ? html`<span class="no">not on this node</span>`
    : html`<span class="yes">on this node</span>, as ${Parts.content(heldHere)}`
  return html`<p><code class="whole">${key}</code>: ${here}</p>${trouble}${others(lookup)}`
}

export const render = (lookup: Lookup | undefined): Html =>
  html`<form method="get" action="/debug/web/#lookup" role="search"><label for="image">Image or digest</label><input id="image" name="image" required maxlength="480" autocomplete="off" autocapitalize="none" spellcheck="false" placeholder="docker.io/library/nginx:1.29, or sha256:…" value="${
    lookup?.image ?? ""
  }"><button>Who has it?</button></form>${
    lookup === undefined ? none : html`<div role="status">${answer(lookup)}</div>`
  }`
