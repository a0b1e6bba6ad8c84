import { Console, Data, Effect } from "effect"
import { Command } from "effect/cli"
import { flagsOf } from "../cli/Setting.ts"
import * as Pulls from "../views/Pulls.ts"
import * as Status from "../views/Status.ts"
import * as Uploads from "../views/Uploads.ts"
import * as Wording from "../views/Wording.ts"
import { debugSettings, get } from "./DebugViews.ts"
import * as Terminal from "./Terminal.ts"

/** The mirror answers, and says that something is wrong. */
export class NodeUnwell extends Data.TaggedError("NodeUnwell")<{ readonly reasons: ReadonlyArray<string> }> {
  override get message() {
    return this.reasons.join("; ")
  }
}

interface NodeStatus {
  readonly status: Status.Status
  readonly pulls: ReadonlyArray<Pulls.Pull>
  readonly uploads: ReadonlyArray<Uploads.Upload>
}

/** What a person has to look at. */
const problems = ({ faults, state, stateReason }: Status.Status): ReadonlyArray<string> => [
  ...(state === "not ready" ? [`the mirror is not ready: ${stateReason}`] : []),
  ...faults
]

const hourLines = ({ lastHour }: Status.Status): ReadonlyArray<readonly [string, string]> => {
  const { bytesFromPeers, bytesSentToPeers, failed, fromPeers, leftToUpstream, peersFailed, sentToPeers } = lastHour
  const asked = fromPeers + leftToUpstream
  const share = lastHour.shareFromPeers === null ? "no requests" : Wording.percent(lastHour.shareFromPeers)
  return [
    [
      "From peers, last hour",
      `${share} (${fromPeers} of ${Wording.count(asked, "request")}, ${
        Wording.size(bytesFromPeers)
      } not fetched from upstream)`
    ],
    ["Sent to peers, last hour", `${Wording.count(sentToPeers, "request")}, ${Wording.size(bytesSentToPeers)}`],
    [
      "Failures, last hour",
      `${Wording.count(failed, "request")}; ${Wording.count(peersFailed, "peer")} failed on the way`
    ]
  ]
}

const pullLines = (pulls: NodeStatus["pulls"]): ReadonlyArray<string> =>
  pulls.flatMap(({ blobs, image }) => [
    `Pulling ${image === "" ? "an image that the mirror was not asked for" : image}`,
    ...blobs.map((blob) =>
      `  ${Wording.short(blob.content)}  ${Wording.progress(blob.written, blob.size)}  ${Wording.fromSource(blob)}${
        blob.to.length === 0 ? "" : `, on to ${blob.to.map(Wording.node).join(", ")}`
      }`
    )
  ])

const uploadLines = (uploads: NodeStatus["uploads"]): ReadonlyArray<string> =>
  uploads.map(({ content, sent, size, to }) =>
    `Sending ${Wording.short(content)} to ${Wording.node(to)}  ${Wording.progress(sent, size)}`
  )

const linesOf = ({ pulls, status, uploads }: NodeStatus, terminal: Terminal.Terminal): ReadonlyArray<string> => {
  const { bad, good, quiet } = terminal
  const { addresses, circuits, dataPlane, faults, id, isProtected, peers, protection, state, stateReason } = status
  const mood = state === "ready" ? good : bad
  const facts: ReadonlyArray<readonly [string, string]> = [
    ["Node", `${addresses.join(", ")} ${quiet(id)}`],
    ["State", `${mood(state)}${stateReason === "" ? "" : `: ${Terminal.printable(stateReason)}`}`],
    ["Peers", String(peers)],
    ["Cluster key", `${isProtected ? good("protected") : bad("not protected")}: ${protection}`],
    ["Data plane", dataPlane],
    ...hourLines(status)
  ]
  return [
    `spegel-ts ${Terminal.printable(status.version)}`,
    ...facts.map(([name, value]) => `${`${name}:`.padEnd(26)}${value}`),
    ...faults.map((fault) => bad(fault)),
    ...circuits.map(({ registry }) => bad(`${registry}: peers kept requests waiting, and get little time`)),
    ...[...pullLines(pulls), ...uploadLines(uploads)].map(Terminal.printable)
  ]
}

export const status = Command.make(
  "status",
  flagsOf(debugSettings),
  Effect.fnUntraced(function*(settings) {
    const found: NodeStatus = yield* Effect.all({
      status: get(settings, "/debug/status.json", Status.Status),
      pulls: get(settings, "/debug/pulls.json", Pulls.Pulls),
      uploads: get(settings, "/debug/uploads.json", Uploads.Uploads)
    })
    yield* Console.log(
      settings.output === "json" ? JSON.stringify(found) : linesOf(found, yield* Terminal.standardOutput).join("\n")
    )
    const reasons = problems(found.status)
    if (reasons.length > 0) return yield* new NodeUnwell({ reasons })
  })
).pipe(
  Command.withDescription("Show the state and current work of this node's mirror, as its debug page does"),
  Command.withExamples([
    { command: "spegel status", description: "Ask the mirror on port 9090 of this node" },
    { command: "spegel status --output=json", description: "For a program" }
  ])
)
