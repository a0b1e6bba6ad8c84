/** What single flight promises whatever happens to the nodes (docs/single-flight.md), and which promise a schedule has broken. */
import type { Ran } from "./Run.ts"

/** The longest wait, in seconds: for three nodes that decide, and then for a source that answers without a byte. */
export const longestWait = (nodes: number): number => 3 + 10 + 0.5 * Math.log2(nodes)

/** How long a mirror stood still, in seconds: its node waits for that, too. */
const frozen = ({ happened }: Ran, name: string) =>
  happened.reduce((sum, { frozen, node }) => sum + (node === name ? frozen : 0), 0)

/** Pulls that failed though nothing that happened to their node cut them short, or that failed again and again. */
export const failures = ({ pulls }: Ran) => pulls.filter(({ error }) => error !== undefined)

/** The longest time without a byte, of all pulls. */
export const gap = (ran: Ran): number => Math.max(0, ...ran.pulls.map(({ gap, node }) => gap - frozen(ran, node.name)))

/** The longest time until a mirror had the head of its answer to its own containerd. */
export const wait = (ran: Ran): number =>
  Math.max(0, ...ran.requests.map(({ firstByteMillis, node }) => firstByteMillis / 1000 - frozen(ran, node)))

/** Mirrors that were stopped and did not end well. */
export const badStops = ({ happened }: Ran) =>
  happened.filter(({ code, kind }) => kind === "mirror stopped" && code !== 0)

/** What is broken, in words. */
export const broken = (ran: Ran, nodes: number): ReadonlyArray<string> => {
  const longest = longestWait(nodes)
  const tooLong = (seconds: number, what: string) =>
    seconds > longest ? [`${what} for ${seconds.toFixed(1)} s, longer than ${longest.toFixed(1)} s`] : []
  return [
    ...failures(ran).map(({ error, node }) => `${node.name} did not get the image: ${error}`),
    ...ran.rings.map(({ content, nodes }) =>
      `bytes of ${content} came back to the node that sent them: ${nodes.join(" < ")}`
    ),
    ...tooLong(gap(ran), "a node got no byte"),
    ...tooLong(wait(ran), "a request waited"),
    ...badStops(ran).map(({ code, node }) => `the mirror of ${node} ended with code ${code} after SIGTERM`),
    ...ran.left.map((node) => `containerd of ${node} kept something of the image`)
  ]
}
