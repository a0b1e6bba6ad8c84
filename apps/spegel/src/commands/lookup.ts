import { Console, Data, Effect } from "effect"
import { Argument, Command } from "effect/cli"
import { flagsOf } from "../cli/Setting.ts"
import * as Lookup from "../views/Lookup.ts"
import * as Wording from "../views/Wording.ts"
import { debugSettings, get } from "./DebugViews.ts"
import * as Terminal from "./Terminal.ts"

/** No node has the image, or it could not be looked up. */
export class NobodyHasIt extends Data.TaggedError("NobodyHasIt")<{ readonly image: string; readonly reason: string }> {
  override get message() {
    return this.reason === "" ? `no node says that it has ${this.image}` : this.reason
  }
}

const linesOf = (found: Lookup.Lookup, { good, quiet }: Terminal.Terminal): ReadonlyArray<string> => [
  Terminal.printable(found.key),
  ...(found.heldHere === null ? [] : [`  ${good("this node")}  ${quiet(found.heldHere)}`]),
  ...found.nodes.map((node) => `  ${good(Wording.node(node))}  ${quiet(node.id)}`),
  ...(found.mayBeMore ? ["  and perhaps more"] : [])
]

export const lookup = Command.make(
  "lookup",
  {
    image: Argument.String("image").pipe(
      Argument.withDescription("Image as in a pod, such as nginx:1.29 or registry.example/app@sha256:..., or a digest")
    ),
    ...flagsOf(debugSettings)
  },
  Effect.fnUntraced(function*({ image, ...settings }) {
    const found = yield* get(
      settings,
      `/debug/lookup.json?${String(new URLSearchParams({ image }))}`,
      Lookup.Lookup
    )
    const isHeld = found.heldHere !== null || found.nodes.length > 0
    if (settings.output === "json") yield* Console.log(JSON.stringify(found))
    else if (isHeld) yield* Console.log(linesOf(found, yield* Terminal.standardOutput).join("\n"))
    if (!isHeld) return yield* new NobodyHasIt({ image: found.key || image, reason: found.problem })
  })
).pipe(
  Command.withDescription("Say which nodes have an image, by its name or digest"),
  Command.withExamples([
    { command: "spegel lookup nginx:1.29", description: "Which nodes have this tag of docker.io/library/nginx" },
    { command: "spegel lookup registry.example/app:2 --output=json", description: "For a program" }
  ])
)
