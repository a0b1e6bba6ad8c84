/** Sizes, times and sources as people read them, on the page and in a terminal. */
import * as Digest from "@spegel-ts/oci/Digest"
import type { NodeName } from "./NodeNames.ts"
import type { Blob } from "./Pulls.ts"

const units = ["B", "KiB", "MiB", "GiB", "TiB"]

export const size = (bytes: number): string => {
  const exponent = bytes < 1 ? 0 : Math.min(units.length - 1, Math.floor(Math.log2(bytes) / 10))
  const value = bytes / 1024 ** exponent
  return `${exponent === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[exponent]}`
}

/** A duration in milliseconds. */
export const duration = (millis: number): string => {
  if (millis < 1000) return `${Math.round(millis)} ms`
  const seconds = Math.round(millis / 1000)
  if (seconds < 60) return `${(millis / 1000).toFixed(1)} s`
  const minutes = Math.floor(seconds / 60)
  return minutes < 60 ? `${minutes} min ${seconds % 60} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`
}

/** How long ago something was, coarsely: it is not to change with every second. In milliseconds. */
export const ago = (millis: number): string => {
  const seconds = Math.max(0, millis / 1000)
  if (seconds < 10) return "just now"
  if (seconds < 60) return `${Math.floor(seconds / 10) * 10} s ago`
  const minutes = Math.floor(seconds / 60)
  return minutes < 60 ? `${minutes} min ago` : `${Math.floor(minutes / 60)} h ago`
}

export const count = (number: number, one: string, many = `${one}s`): string => `${number} ${number === 1 ? one : many}`

/** A part from 0 to 1. Nearly all is not all. */
export const percent = (part: number): string =>
  `${part > 0.99 && part < 1 ? 99 : part > 0 && part < 0.01 ? "< 1" : Math.round(part * 100)} %`

/** A digest by its first characters, a tag as it is. */
export const short = (content: string): string => Digest.isDigest(content) ? `${content.slice(0, 19)}…` : content

/** A node by its address, with its zone if it names one. */
export const node = ({ address, id, zone }: NodeName): string =>
  `${address === "" ? `${id.slice(0, 16)}…` : address}${zone === undefined ? "" : ` (${zone})`}`

const nodes = (names: ReadonlyArray<NodeName>): string => names.map(node).join(", ")

/** Where the bytes of a blob come from. */
export const source = ({ from, source }: Blob): string => {
  switch (source) {
    case "peers":
      return from.length === 0 ? "peers" : nodes(from)
    case "upstream":
      return "upstream"
    case "waiting":
      return `waiting for ${nodes(from)}`
    case "looking":
      return "looking for a peer"
    case "stalled":
      return "no bytes for a while"
    case "unknown":
      return "a source that the mirror does not know"
  }
}

/** The same as a part of a sentence. */
export const fromSource = (blob: Blob): string =>
  ["peers", "upstream", "unknown"].includes(blob.source) ? `from ${source(blob)}` : source(blob)

/** How far a body has come; `total` is null if that is not known. */
export const progress = (done: number, total: number | null): string =>
  total === null ? size(done) : `${size(done)} of ${size(total)} (${percent(total === 0 ? 1 : done / total)})`
