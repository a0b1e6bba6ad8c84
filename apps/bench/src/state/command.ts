/** `npm run bench -- state`. */
import { Console, Effect } from "effect"
import { Command, Flag } from "effect/cli"
import * as Bar from "../Bar.ts"
import * as Network from "../bytes/load/Network.ts"
import { bars, type Figures, measure } from "./measure.ts"
import type { Kind } from "./Stores.ts"

const columns = ["CPU ms/blob", "visible ms p50", "max", "restart ms", "RSS MiB", "empty MiB", "idle %", "others, CPUs"]
const width = 16

const head = "".padEnd(20) + columns.map((title) => title.padStart(width)).join("")

const row = (figures: Figures): string => {
  const { blobs, cpuMillisPerBlob, emptyRssMiB, idlePercent, otherCpus, restartMillis, rssMiB, store, visibleMillis } =
    figures
  const cells = [
    cpuMillisPerBlob.toFixed(2),
    visibleMillis.p50.toFixed(0),
    visibleMillis.max.toFixed(0),
    restartMillis.toFixed(0),
    rssMiB.toFixed(1),
    emptyRssMiB.toFixed(1),
    idlePercent.toFixed(2),
    otherCpus.toFixed(2)
  ]
  return `${store}, ${blobs}`.padEnd(20) + cells.map((cell) => cell.padStart(width)).join("")
}

const kinds: ReadonlyArray<Kind> = ["containerd", "layout"]
const counts = [100, 2000, 20_000]

export const state = Command.make("state", {
  store: Flag.Literals("store", kinds).pipe(
    Flag.withDescription("Measure one kind of store; default both"),
    Flag.atLeast(0)
  ),
  blobs: Flag.Int("blobs").pipe(
    Flag.withDescription(`Blobs that the node holds; default ${counts.join(", ")}`),
    Flag.atLeast(0)
  ),
  port: Flag.Int("port").pipe(Flag.withDescription("First of three ports"), Flag.withDefault(26_351)),
  json: Flag.Boolean("json").pipe(
    Flag.withDescription("Print the figures as JSON too, one object a line"),
    Flag.withDefault(false)
  )
}, ({ blobs, json, port, store }) =>
  Network.own({ machine: false }, () =>
    Effect.gen(function*() {
      const measured: Array<Figures> = []
      yield* Console.log(head)
      yield* Effect.promise(() =>
        measure({
          port,
          stores: store.length === 0 ? kinds : store,
          counts: blobs.length === 0 ? counts : blobs,
          onFigures: (figures) => {
            measured.push(figures)
            Effect.runSync(Console.log(row(figures)))
          }
        })
      )
      yield* Console.log("")
      const largest = Math.max(...measured.map(({ blobs }) => blobs))
      for (const figures of measured.filter(({ blobs }) => blobs === largest)) {
        yield* Bar.printAll(bars(figures))
      }
      if (json) { for (const figures of measured) yield* Console.log(JSON.stringify(figures)) }
    }))).pipe(
    Command.withDescription(
      "What a node costs by how many blobs it holds, in a real containerd (needs root) and in an image layout"
    )
  )
