/** The page at `/debug/web/`, whole and without need of scripts. With them its sections update themselves (`EventStreams`). */
import type { Lookup } from "../views/Lookup.ts"
import { type Html, html, none } from "./Html.ts"
import * as LookupSection from "./LookupSection.ts"
import { type SectionName, sections, type Shown } from "./Sections.ts"

export interface PageOptions extends Shown {
  /** The answer to the question in the form; undefined if nothing was asked. */
  readonly lookup: Lookup | undefined
  /** The port of this page, which is that of the other nodes' pages too. */
  readonly port: number
  /** Whether a CPU profile may be taken. */
  readonly profile: boolean
}

const section = (name: string, title: string, content: Html): Html =>
  html`<section aria-labelledby="${name}-title"><h2 id="${name}-title">${title}</h2><div id="${name}">${content}</div></section>`

/** How to see what another node sees: each page is answered to its own node only. */
const otherNodes = ({ facts: { peers }, port }: PageOptions): Html => {
  const address = peers[0]?.addresses[0] ?? "10.0.0.7"
  const pod = `kubectl --namespace spegel get pods --output name --field-selector status.podIP=${address}`
  return html`<p>Each node serves its own page, on that node or through a forwarded port. To open the page of the node at ${address}:</p><pre tabindex="0"><code>kubectl --namespace spegel port-forward $(${pod}) 9091:${port}</code></pre><p>Then open <code>http://localhost:9091/debug/web/</code>. In a terminal on a node, <code>spegel status</code> and <code>spegel lookup IMAGE</code> say the same.</p>`
}

const jsonPaths = ["status", "pulls", "images", "peers", "requests", "uploads"].map((name) => `/debug/${name}.json`)

const json = ({ profile }: PageOptions): Html =>
  html`<p>For programs: ${
    [...jsonPaths, "/debug/lookup.json?image=nginx", "/metrics"].map((path) => html`<a href="${path}">${path}</a> `)
  }${profile ? html`<a href="/debug/profile?seconds=10">/debug/profile?seconds=10</a>` : none}</p>`

/** The titles of the sections, in their order. */
const titles: ReadonlyArray<readonly [SectionName | "lookup", string]> = [
  ["pulls", "Being pulled now"],
  ["uploads", "Sent to others"],
  ["lookup", "Who has this image?"],
  ["peers", "Peers"],
  ["images", "Images held"],
  ["requests", "Last requests"]
]

const navigation = html`<nav aria-label="Sections"><a class="skip" href="#main">Skip to the content</a>${
  titles.map(([name, title]) => html`<a href="#${name}-title">${title}</a>`)
}</nav>`

export const render = (options: PageOptions): string => {
  const { facts: { self, version }, lookup } = options
  const content = (name: SectionName | "lookup") =>
    name === "lookup" ? LookupSection.render(lookup) : sections[name].render(options)
  return html`<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark"><title>spegel-ts ${
    self.addresses[0] ?? ""
  }</title><link rel="icon" href="data:,"><link rel="stylesheet" href="/debug/page.css"><script src="/debug/page.js" defer></script></head><body>
<header><h1>spegel-ts ${version} <small>${
    self.addresses[0] ?? ""
  }</small></h1><p id="live" role="status">Not live: as it was when the page was loaded. <a href="/debug/web/">Reload</a></p></header>
${navigation}
<main id="main"><div id="status">${sections.status.render(options)}</div>
${titles.map(([name, title]) => section(name, title, content(name)))}
${section("others", "The other nodes' pages", html`${otherNodes(options)}${json(options)}`)}
</main></body></html>`.text
}
