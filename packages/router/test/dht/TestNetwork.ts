import { positionOf } from "@spegel-ts/router/internal/dht/Distance"
import type { Message } from "@spegel-ts/router/internal/dht/rpc/Message"
import { ideal, SimulatedNetwork, type SimulatedNode } from "@spegel-ts/testing/dht/SimulatedNetwork"
import { random } from "@spegel-ts/testing/SeededRandom"

/** The DHT key for a name. */
export const key = (name: number | string): Uint8Array =>
  Buffer.concat([Uint8Array.of(0x12, 0x20), positionOf(Buffer.from(`${name}`))])

/** A network under ideal conditions, with all requests so far. */
export const startNetwork = () => {
  const network = new SimulatedNetwork(ideal, random(1).next)
  const requests: Array<{ readonly to: string; readonly message: Message }> = []
  network.onRequest = (_from, to, message) => void requests.push({ to, message })
  const start = (name: string, options?: { readonly host?: number }) => network.start(Buffer.from(name), options)
  /** Starts `count` nodes that know the first one, and lets them find each other. */
  const grow = async (count: number): Promise<ReadonlyArray<SimulatedNode>> => {
    const nodes = Array.from({ length: count }, (_, index) => start(`node ${index}`))
    for (const node of nodes.slice(1)) network.connect(node, nodeAt(nodes, 0))
    await network.pass(20_000)
    return nodes
  }
  return { grow, network, requests, start }
}

export const nodeAt = (nodes: ReadonlyArray<SimulatedNode>, index: number): SimulatedNode => {
  const node = nodes[index]
  if (node === undefined) throw new Error(`no node ${index}`)
  return node
}
