/** The parts that several sections of the page have. */
import * as Digest from "@spegel-ts/oci/Digest"
import type { NodeName } from "../views/NodeNames.ts"
import * as Wording from "../views/Wording.ts"
import { type Html, html, none, type Part } from "./Html.ts"

/** A cell; on a narrow screen, where a row is a card, it has its column's name before it. */
export interface Column<A> {
  readonly name: string
  readonly of: (row: A) => Part
  readonly isNumber?: boolean
}

/** States ARIA roles: the narrow-screen style displays rows as blocks, and browsers then drop the table's semantics. */
export const table = <A>(caption: string, columns: ReadonlyArray<Column<A>>, rows: ReadonlyArray<A>): Html =>
  html`<table role="table" aria-label="${caption}"><thead role="rowgroup"><tr role="row">${
    columns.map(({ isNumber, name }) => html`<th role="columnheader" scope="col"${numeric(isNumber)}>${name}</th>`)
  }</tr></thead><tbody role="rowgroup">${
    rows.map((row) =>
      html`<tr role="row">${
        columns.map(({ isNumber, name, of }) =>
          html`<td role="cell" data-label="${name}"${numeric(isNumber)}><div>${of(row)}</div></td>`
        )
      }</tr>`
    )
  }</tbody></table>`

const numeric = (isNumber: boolean | undefined): Html => isNumber === true ? html` class="number"` : none

/** A digest in the space of its first characters. A click selects the whole one, to copy it. Anything else is shown as it is. */
export const content = (text: string): Html =>
  Digest.isDigest(text)
    ? html`<code class="digest" title="${text} (a click selects the whole digest)">${text}</code>`
    : html`<code>${text}</code>`

export const node = (name: NodeName): Html => html`<span class="node" title="${name.id}">${Wording.node(name)}</span>`

/** `label` says whose progress it is. */
export const bar = (label: string, done: number, total: number | null): Html =>
  total === null
    ? html`<progress aria-label="${label}"></progress>`
    : html`<progress aria-label="${label}" max="${total}" value="${Math.min(done, total)}"></progress>`

export const nothing = (text: string): Html => html`<p class="quiet">${text}</p>`

/** Says how many rows are left out. */
export const more = (shown: number, all: number, path: string): Html =>
  all > shown
    ? html`<p class="quiet">The first ${shown} of ${all}; all are in <a href="${path}">${path}</a>.</p>`
    : none
