/**
 * The script of the page. It takes the sections as the node renders them, and changes what differs and nothing else: what is open stays
 * open, and the focus and the selection where they are. A page that nobody looks at closes its stream.
 */
export const script = String.raw`"use strict"
const live = document.getElementById("live")
const say = (text, on) => {
  if (live.textContent === text) return
  live.textContent = text
  live.classList.toggle("on", on)
}
const keyOf = (node) => node.nodeType === 1 ? node.dataset.key ?? node.id : ""

const morphAttributes = (from, to) => {
  for (const { name, value } of to.attributes) if (from.getAttribute(name) !== value) from.setAttribute(name, value)
  for (const { name } of [...from.attributes]) {
    if (!to.hasAttribute(name) && !(name === "open" && from.nodeName === "DETAILS")) from.removeAttribute(name)
  }
}
const morph = (from, to) => {
  if (from.nodeType === 3) {
    if (from.data !== to.data) from.data = to.data
    return
  }
  morphAttributes(from, to)
  morphChildren(from, to)
}
const fits = (from, to) => from !== null && from.nodeName === to.nodeName && keyOf(from) === keyOf(to)
const morphChildren = (from, to) => {
  const keyed = new Map([...from.children].filter((child) => keyOf(child) !== "").map((child) => [keyOf(child), child]))
  let at = from.firstChild
  for (const wanted of [...to.childNodes]) {
    const key = keyOf(wanted)
    const known = key === "" ? at : keyed.get(key) ?? null
    if (known === null || !fits(known, wanted)) {
      from.insertBefore(wanted, at)
      continue
    }
    if (known === at) at = at.nextSibling
    else from.insertBefore(known, at)
    morph(known, wanted)
  }
  while (at !== null) {
    const next = at.nextSibling
    at.remove()
    at = next
  }
}
const take = ({ data }) => {
  say("Live", true)
  for (const [name, text] of Object.entries(JSON.parse(data))) {
    const section = document.getElementById(name)
    const template = document.createElement("template")
    template.innerHTML = text
    if (section !== null) morphChildren(section, template.content)
  }
}

let stream
const open = () => {
  stream ??= Object.assign(new EventSource("/debug/events"), {
    onmessage: take,
    onerror: () => {
      if (stream.readyState === EventSource.CLOSED) say("Not live: too many pages are open. Reload to see news.", false)
      else say("Not live: the node does not answer. Trying again…", false)
    }
  })
}
const close = () => {
  stream?.close()
  stream = undefined
}
const follow = () => document.hidden ? close() : open()
document.addEventListener("visibilitychange", follow)
follow()
`
