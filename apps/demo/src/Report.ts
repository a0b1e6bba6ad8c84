/** The sums and stories that the demo prints. */
import type { FlippedByte } from "./acts/FlippedByte.ts"
import type { KilledPeer } from "./acts/KilledPeer.ts"
import type { Pulls } from "./acts/Pulls.ts"
import * as Units from "./Units.ts"

/** All pulls of an image, without and with the mirror. */
export interface Comparison {
  readonly without: Pulls
  readonly with: Pulls
}

const cells = (label: string, without: string, through: string) =>
  `${label.padEnd(34)}${without.padStart(20)}${through.padStart(20)}`

const pulls = ({ millis, upstreamBytes }: Pulls) => `${Units.seconds(millis)} ${Units.mebi(upstreamBytes).padStart(11)}`

/** What the client takes when nothing else limits it, in MB/s. */
export const clientSpeed = ({ without }: Comparison): number =>
  Math.round(without.fromUpstream / 1e6 / (without.millis / 1000))

/** Time and upstream bytes; the second row is for an upstream that is not shaped. */
export const sums = (shaped: Comparison, link: Units.Link, unshaped: Comparison | undefined): string => {
  const row = (label: string, { with: through, without }: Comparison) => cells(label, pulls(without), pulls(through))
  return [
    cells("upstream", "without the mirror", "with it"),
    row(Units.link(link), shaped),
    ...(unshaped === undefined ? [] : [
      row("not shaped", unshaped),
      "Not shaped, upstream is this machine itself: a mirror saves bytes then, not time.",
      `(The demo's client alone takes ${Units.count(clientSpeed(unshaped))} MB/s: shaped pulls do not wait for it.)`
    ])
  ].join("\n")
}

export const atOnce = ({ upstreamBytes }: Pulls, imageBytes: number, nodes: number): string =>
  `Upstream sent the image ${(upstreamBytes / imageBytes).toFixed(2)} times for ${nodes} nodes.`

export const killedPeer = (act: KilledPeer): string =>
  [
    `${act.node} pulled a layer of ${Units.mebi(act.layerBytes)}, which upstream does not have, from ${act.killed}.`,
    `${act.killed} was killed (SIGKILL) after ${Units.count(act.fromKilled)} bytes; ${act.successor} went on at byte ${
      Units.count(act.resumedAt)
    }.`,
    `The client saw one response, and its sha256 is right. Upstream sent ${act.upstreamBytes} bytes.`
  ].join("\n")

/** How the wrong byte was found, for as far as it was. */
const refusal = ({ isRefusedByClient, isRefusedByMirror, node }: FlippedByte): string =>
  isRefusedByClient
    ? `its client refused it at the end, as containerd does. Try 2 came from upstream`
    : isRefusedByMirror
    ? `${node} verified it before it passed on a byte, and left it to upstream`
    : "nobody met the wrong byte"

export const flippedByte = (act: FlippedByte): string =>
  [
    `A layer of ${Units.mebi(act.layerBytes)} of ${act.holder}, pulled by ${act.node}:`,
    `  ${refusal(act)}.`,
    ...(act.isWithdrawn ? [`  ${act.holder} has checked its copy since, and gives it to nobody any more.`] : [])
  ].join("\n")
