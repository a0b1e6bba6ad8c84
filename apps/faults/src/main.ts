/**
 * `npm run faults`: tells whether a pull survives every fault of a peer, and what the fault costs, with real containerd daemons.
 * Needs root, for namespaces and for containerd.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as ContainerdDaemon from "@spegel-ts/testing/containerd/ContainerdDaemon"
import * as ContainerdPackages from "@spegel-ts/testing/containerd/ContainerdPackages"
import * as NetworkNamespace from "@spegel-ts/testing/network/NetworkNamespace"
import { Console, Data, Effect, Exit, Option } from "effect"
import { Command, Flag } from "effect/cli"
import { mkdir, writeFile } from "node:fs/promises"
import { join, resolve } from "node:path"
import * as EmptyMirror from "./EmptyMirror.ts"
import * as Lane from "./Lane.ts"
import * as Matrix from "./Matrix.ts"
import * as Plan from "./Plan.ts"
import * as Report from "./Report.ts"

/** Plain pulls before the first cell, and cells between the further ones. */
const plainPulls = 3
const cellsBetweenPlainPulls = 8

/** How often a cell that is late is measured: the machine may have been busy. */
const maxMeasurements = 3

const startLane = (index: number, { client, company, flavour, singleFlight }: Omit<Plan.Part, "cells">) =>
  Effect.flatMap(ContainerdPackages.fetch(flavour.version), (containerd) =>
    Lane.start({
      index,
      containerd,
      client,
      hasKey: singleFlight,
      hasSecond: company === "second node",
      ...(flavour.settings === undefined ? {} : { settings: flavour.settings })
    }))

const runPart = Effect.fnUntraced(function*(part: Plan.Part, index: number) {
  const { cells, flavour } = part
  const lane = yield* startLane(index, part)
  const plainSeconds: Array<number> = []
  const plain = Effect.map(Matrix.plainPull(lane, flavour.inParts), (seconds) => plainSeconds.push(seconds))
  yield* Effect.repeat(plain, { times: plainPulls - 1 })
  const results: Array<Matrix.CellResult> = []
  const result: Report.PartResult = { ...part, plainSeconds, cells: results }
  for (const [position, cell] of cells.entries()) {
    if (position % cellsBetweenPlainPulls === 0) yield* plain
    let measured = yield* Matrix.runCell(lane, cell)
    for (let times = 1; times < maxMeasurements && Report.isLate(result, measured); times++) {
      measured = yield* Matrix.runCell(lane, cell)
    }
    results.push(measured)
  }
  const met = results.filter((cell) => Report.isMet(result, cell)).length
  if (met < results.length) yield* Console.error(`\n${Report.failures(result)}\n`)
  yield* Console.log(
    `containerd ${flavour.name}, ${part.client}, beside ${part.company}: ${met} of ${results.length} cells`
  )
  return result
}, Effect.scoped)

const flags = {
  quick: Flag.Boolean("quick").pipe(
    Flag.withDescription("All faults with the newest containerd only"),
    Flag.withDefault(false)
  ),
  singleFlight: Flag.Boolean("single-flight").pipe(
    Flag.withDescription(
      "Give all members a cluster key, which switches single flight on; also has two nodes pull at once"
    ),
    Flag.withDefault(false)
  ),
  containerd: Flag.Literals("containerd", ContainerdPackages.versions).pipe(
    Flag.withDescription("Only this version; may be repeated"),
    Flag.atLeast(0)
  ),
  client: Flag.Literals("client", Plan.clients).pipe(
    Flag.withDescription("Only this client of containerd; may be repeated"),
    Flag.atLeast(0)
  ),
  fault: Flag.String("fault").pipe(Flag.withDescription("Only faults with this in their name"), Flag.withDefault("")),
  request: Flag.String("request").pipe(
    Flag.withDescription("Only requests with this in their name"),
    Flag.withDefault("")
  ),
  only: Flag.Literals("only", ["cells", "empty-mirror"]).pipe(
    Flag.withDescription("Only the matrix, or only the cost of a mirror that finds nothing; default: both"),
    Flag.optional
  ),
  dataPlane: Flag.Literals("data-plane", ["auto", "zero-copy", "portable"]).pipe(
    Flag.withDescription("How the mirrors move bodies"),
    Flag.withDefault("auto")
  ),
  lanes: Flag.Int("lanes").pipe(Flag.withDescription("Clusters that run at once"), Flag.withDefault(4)),
  pairs: Flag.Int("pairs").pipe(
    Flag.withDescription("Pairs of pulls with and without an empty mirror; three times as many where it is not clear"),
    Flag.withDefault(9)
  ),
  out: Flag.String("out").pipe(
    Flag.withDescription("Directory for the tables (faults.md) and all figures (faults.json)"),
    Flag.optional
  )
}

/** Nothing can be measured. */
class CannotMeasure extends Data.TaggedError("CannotMeasure")<{ readonly reason: string }> {
  override get message() {
    return this.reason
  }
}

type Options = Command.Command.Config.Infer<typeof flags>

const measure = Effect.fnUntraced(function*(options: Options) {
  const { client, containerd, fault, lanes, only, out, pairs, quick, request, singleFlight } = options
  const wants = (what: "cells" | "empty-mirror") => Option.getOrElse(only, () => what) === what
  const versions = containerd.length > 0 ? containerd : ContainerdPackages.versions
  const plan = Plan.make({
    versions,
    clients: client.length > 0 ? client : Plan.clients,
    quick,
    singleFlight,
    filter: { fault, request }
  })
  if (plan.length === 0) {
    return yield* new CannotMeasure({ reason: `no cell matches --fault=${fault} --request=${request}` })
  }
  const exits = yield* Effect.forEach(
    wants("cells") ? plan : [],
    (part, index) => Effect.exit(runPart(part, index)),
    { concurrency: lanes }
  )
  const broken = exits.filter(Exit.isFailure)
  for (const { cause } of broken) yield* Console.error(`a cluster could not be run: ${String(cause)}`)
  const parts = exits.filter(Exit.isSuccess).map(({ value }) => value)
  const cells = parts.flatMap((part) => part.cells.map((cell) => Report.isMet(part, cell)))
  const failed = cells.filter((met) => !met).length

  // One after another: here tens of milliseconds matter.
  const empty = yield* Effect.forEach(
    wants("empty-mirror") ? plan.filter(({ company, flavour }) => company === "upstream" && !flavour.inParts) : [],
    (part) =>
      Effect.flatMap(
        startLane(plan.length, part),
        (lane) => EmptyMirror.measure(lane, `${part.flavour.name} ${part.client}`, pairs)
      ).pipe(
        Effect.scoped,
        Effect.tap(({ name, pairs, ratio }) =>
          Console.log(`containerd ${name}, empty mirror: ${ratio.toFixed(3)} times as long as without, ${pairs} pairs`)
        )
      )
  )

  const tables = [
    ...(parts.length > 0 ? [Report.tables(parts)] : []),
    ...(empty.length > 0 ? [Report.emptyMirrorTable(empty)] : [])
  ].join("\n")
  yield* Console.log(`\n${tables}`)
  if (Option.isSome(out)) {
    const directory = out.value
    yield* Effect.promise(async () => {
      await mkdir(directory, { recursive: true })
      await writeFile(join(directory, "faults.md"), tables)
      await writeFile(join(directory, "faults.json"), JSON.stringify({ parts, empty }, null, 2))
    })
  }
  const missed = empty.filter((result) => !EmptyMirror.isMet(result))
  yield* Console.log(
    `${cells.length - failed} of ${cells.length} cells: pulled, at most ${
      Matrix.maxAdded(singleFlight)
    } s later than without a mirror`
  )
  for (const { name, ratio } of missed) {
    yield* Console.error(`${name}: a mirror that has nothing makes pulls take ${ratio.toFixed(3)} times as long`)
  }
  return broken.length + failed + missed.length === 0 ? 0 : 1
})

const command = Command.make("faults", flags, (options) =>
  Effect.gen(function*() {
    const missing = ContainerdDaemon.missingPrerequisite("docker-registry")
    if (missing !== undefined) return yield* new CannotMeasure({ reason: missing })
    const out = Option.map(options.out, (path) => resolve(path))
    // All mirrors inherit the variable.
    process.env["DATA_PLANE"] = options.dataPlane
    process.exitCode = yield* NetworkNamespace.isolated(measure({ ...options, out }))
  })).pipe(Command.withDescription("Pulls through a mirror whose peers misbehave, with real containerd daemons"))

command.pipe(
  Command.run({ version: "0.1.0" }),
  Effect.provide(NodeServices.layer),
  NodeRuntime.runMain
)
