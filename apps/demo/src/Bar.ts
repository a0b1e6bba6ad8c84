/** A node's bar: what it has of an image, by where that came from. Sources differ in their shades, too, for those without colours. */
import * as Units from "./Units.ts"

export type Source = "upstream" | "peers"

export interface State {
  /** Bytes. */
  readonly upstream: number
  readonly peers: number
  /** How long the whole pull took; undefined while it runs. */
  readonly millis: number | undefined
}

export interface BarOptions extends State {
  readonly node: string
  /** The size of the image in bytes. */
  readonly total: number
  readonly isColoured: boolean
}

const width = 24
const shades = { upstream: "▒", peers: "█", missing: "·" }
const colours = { upstream: 33, peers: 32, missing: 90 }

const segment = (kind: keyof typeof shades, length: number, isColoured: boolean): string => {
  const text = shades[kind].repeat(length)
  return isColoured && length > 0 ? `\u001B[${colours[kind]}m${text}\u001B[0m` : text
}

/** One line of at most 80 columns, without its end. */
export const print = ({ isColoured, millis, node, peers, total, upstream }: BarOptions): string => {
  const cells = (bytes: number) => Math.round(Math.min(1, bytes / Math.max(1, total)) * width)
  const ofUpstream = cells(upstream)
  const ofPeers = Math.max(0, cells(upstream + peers) - ofUpstream)
  const bar = segment("upstream", ofUpstream, isColoured) + segment("peers", ofPeers, isColoured) +
    segment("missing", width - ofUpstream - ofPeers, isColoured)
  const from = [
    ...(upstream > 0 ? [`${Units.mebi(upstream)} upstream`] : []),
    ...(peers > 0 ? [`${Units.mebi(peers)} peers`] : [])
  ].join(", ")
  const time = millis === undefined ? "" : Units.seconds(millis)
  return `${node}  ${bar}  ${time.padStart(6)}  ${from}`.trimEnd()
}

/** What the shades mean. */
export const legend = (isColoured: boolean): string =>
  `${segment("upstream", 2, isColoured)} from upstream  ${segment("peers", 2, isColoured)} from peers`
