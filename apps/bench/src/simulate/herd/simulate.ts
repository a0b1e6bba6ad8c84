/** Simulates a herd: many nodes that want one blob, with faults. */
import { Network, type NetworkOptions } from "./Network.ts"
import { SimulatedNode } from "./SimulatedNode.ts"

export interface HerdOptions extends NetworkOptions {
  readonly nodes: number
  /** The starts are spread over so many milliseconds. */
  readonly spread: number
  /** What happens to the first node that downloads, once it has 30 %. */
  readonly fault: "none" | "node gone" | "mirror killed" | "upstream stalls"
  /** The share of nodes that each node does not know yet, and of nodes that all know though they are gone. */
  readonly stale: number
  /** The share of nodes to which something happens at a random time. */
  readonly randomFaults: number
}

export interface HerdFigures {
  /** Bytes from upstream as a multiple of the blob. */
  readonly copies: number
  /** The last node's time as a multiple of a lone pull's. */
  readonly slowest: number
  readonly longestGapSeconds: number
  readonly messagesPerNode: number
  /** Nodes that could finish and did not. */
  readonly stuck: number
  /** How often a node was seen in a ring of nodes that take bytes from each other. */
  readonly cycles: number
}

const struckAfter = 0.3
const checkEveryMillis = 100
const maxMillis = 30 * 60_000

export const simulate = async (options: HerdOptions): Promise<HerdFigures> => {
  const { fault, firstByteMillis, link, randomFaults, size, spread, stale, upstream } = options
  const network = new Network(options)
  const { clock, random } = network
  const nodes = Array.from(
    { length: options.nodes },
    (_, index) => new SimulatedNode(network, `node-${index}`)
  )
  const alone = firstByteMillis + 1000 * size / Math.min(upstream, link)
  for (const node of nodes) {
    node.isUnplugged = random.chance(stale)
    for (const other of nodes) if (random.chance(stale)) node.overlook(other)
  }
  for (const node of nodes) {
    clock.after(spread * random.next(), () => void node.pull())
    if (random.chance(randomFaults)) {
      clock.after((spread + alone) * random.next(), () => strike(node, random.pick(faults)))
    }
  }
  let struck: SimulatedNode | undefined
  let cycles = 0
  const isOpen = (node: SimulatedNode) =>
    node !== struck && !node.isUnplugged && !node.isStalled && node.doneAt === undefined
  while (clock.now < maxMillis && nodes.some(isOpen)) {
    await clock.pass(checkEveryMillis)
    cycles += nodes.filter(isInRing).length
    const leader = nodes.find((node) => node.growth?.origin === "upstream" && node.received > struckAfter * size)
    if (fault === "none" || struck !== undefined || leader === undefined) continue
    struck = leader
    strike(leader, fault)
  }
  const finished = nodes.filter((node) => node.doneAt !== undefined && node !== struck && node.hasMirror)
  return {
    copies: network.upstreamBytes / size,
    slowest: Math.max(...finished.map(({ doneAt = 0, startedAt = 0 }) => doneAt - startedAt)) / alone,
    longestGapSeconds: Math.max(...finished.map(({ longestGap }) => longestGap)) / 1000,
    messagesPerNode: network.messages / nodes.length,
    stuck: nodes.filter(isOpen).length,
    cycles
  }
}

type Strike = Exclude<HerdOptions["fault"], "none">
const faults: ReadonlyArray<Strike> = ["node gone", "mirror killed", "upstream stalls"]

const strike = (node: SimulatedNode, fault: Strike): void => {
  switch (fault) {
    case "node gone":
      node.isUnplugged = true
      return
    case "mirror killed":
      return node.loseMirror()
    case "upstream stalls":
      // Only a node that downloads has an upstream that can stall.
      if (node.growth?.origin === "upstream") node.isStalled = true
  }
}

const isInRing = (node: SimulatedNode): boolean => {
  const seen = new Set<SimulatedNode>()
  for (let at = node.source; at !== undefined && !seen.has(at); at = at.source) {
    if (at === node) return true
    seen.add(at)
  }
  return false
}
