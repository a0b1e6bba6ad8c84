/** `npm run bench -- serve`, `relay`, `memory`, `transfer` and `cold-files`. */
import { Console, Effect, Option } from "effect"
import { Command, Flag } from "effect/cli"
import * as Bar from "../Bar.ts"
import { json, svg } from "../Flags.ts"
import * as Plot from "../Plot.ts"
import { cold as measureCold } from "./cold.ts"
import type { Figures } from "./Comparison.ts"
import type { Target } from "./Load.ts"
import { memory as measureMemory } from "./memory.ts"
import * as Network from "./Network.ts"
import { relay as measureRelay } from "./relay.ts"
import { type Result, serve as measureServe } from "./serve.ts"
import { transfer as measureTransfer } from "./transfer.ts"

const port = (fallback: number) =>
  Flag.Int("port").pipe(Flag.withDescription("First of the ports that are used"), Flag.withDefault(fallback))

const flags = {
  rounds: Flag.Int("rounds").pipe(Flag.withDescription("Rounds of each implementation"), Flag.withDefault(5)),
  url: Flag.String("url").pipe(
    Flag.withDescription(
      "name=http://HOST:PORT/PATH of a blob that another server has, or name=PID=http://... to measure its CPU time too"
    ),
    Flag.atLeast(0)
  ),
  svg,
  json
}

/** Another server, as `--url` names it. */
const parse = (text: string): Target => {
  const match = /^([^=]+)=(?:(\d+)=)?(http:\/\/.+)$/.exec(text)
  const url = URL.parse(match?.[3] ?? "")
  if (match === null || url === null) throw new Error(`--url: ${text} is not name=http://HOST:PORT/PATH`)
  return {
    name: match[1] ?? "",
    pid: match[2] === undefined ? undefined : Number(match[2]),
    host: url.hostname,
    port: Number(url.port || 80),
    path: url.pathname + url.search,
    smallPath: undefined,
    fields: []
  }
}

const cell = (value: number | null, digits: number) => (value === null ? "-" : value.toFixed(digits)).padStart(14)

const table = (figures: ReadonlyArray<Figures>) => [
  ["".padEnd(20), "clients".padStart(8), "GiB/s".padStart(14), "CPU-s/GiB".padStart(14), "first byte ms".padStart(14)]
    .join(""),
  ...figures.map(({ clients, cpuSecondsPerGib, firstByteMs, gibPerSecond, implementation }) =>
    implementation.padEnd(20) + String(clients).padStart(8) + cell(gibPerSecond, 2) + cell(cpuSecondsPerGib, 3) +
    cell(firstByteMs, 1)
  )
]

const plot = (title: string, figures: ReadonlyArray<Figures>): string =>
  Plot.bars(
    title,
    [...new Set(figures.map(({ clients }) => clients))].flatMap((clients) => {
      const own = figures.filter((figures) => figures.clients === clients)
      const group = (name: string, of: (figures: Figures) => number | null): Plot.Bars => ({
        name: `${name}, ${clients} clients`,
        bars: own.flatMap((figures) => {
          const value = of(figures)
          return value === null ? [] : [{ name: figures.implementation, value }]
        })
      })
      return [
        group("CPU seconds a GiB", ({ cpuSecondsPerGib }) => cpuSecondsPerGib),
        group("GiB a second", ({ gibPerSecond }) => gibPerSecond)
      ]
    })
  )

/** Other servers are in the machine's network. */
const inNetwork = (url: ReadonlyArray<string>) => url.length === 0 ? Network.own : Network.ofMachine

const report = Effect.fnUntraced(function*(
  name: string,
  title: string,
  { bars, figures, otherCpus }: Result,
  options: { readonly svg: Option.Option<string>; readonly json: boolean },
  more: ReadonlyArray<string>
) {
  for (const line of [...table(figures), ...more]) yield* Console.log(line)
  yield* Console.log(`others used ${otherCpus.toFixed(2)} CPUs meanwhile\n`)
  for (const bar of bars) yield* Console.log(Bar.print(bar))
  if (Option.isSome(options.svg)) {
    const directory = options.svg.value
    yield* Effect.promise(() => Plot.write(directory, name, plot(title, figures)))
  }
  if (options.json) yield* Console.log(JSON.stringify(figures))
})

const serve = Command.make(
  "serve",
  { ...flags, port: port(26_101) },
  ({ json, port, rounds, svg, url }) =>
    Effect.gen(function*() {
      const result = yield* Effect.promise(() => measureServe({ rounds, port, others: url.map(parse) }))
      const { bareRequestsPerSecond, requestsPerSecond } = result.manifests
      yield* report("serve", "Own content to clients, 256 MiB from the page cache", result, { svg, json }, [
        `small manifests: ${requestsPerSecond} a second, bare node:http ${bareRequestsPerSecond}`
      ])
    }).pipe(inNetwork(url))
).pipe(Command.withDescription("Own content to clients, beside nginx and createReadStream().pipe"))

const relay = Command.make(
  "relay",
  { ...flags, port: port(26_151) },
  ({ json, port, rounds, svg, url }) =>
    Effect.gen(function*() {
      const result = yield* Effect.promise(() => measureRelay({ rounds, port, others: url.map(parse) }))
      yield* report("relay", "A peer's bytes to clients, 256 MiB", result, { svg, json }, [
        `sha256 on one core: ${result.sha256GibPerSecond.toFixed(2)} GiB/s`,
        ...result.withPeer.map(({ clients, ratio }) =>
          `CPU of mirror and peer together, of nginx's proxy and peer, ${clients} clients: ${ratio?.toFixed(2) ?? "-"}`
        )
      ])
    }).pipe(inNetwork(url))
).pipe(Command.withDescription("A peer's bytes to clients, beside nginx's proxy and node:http .pipe"))

const memory = Command.make("memory", { port: port(26_201), json }, ({ json, port }) =>
  Effect.gen(function*() {
    const { bars, figures } = yield* Effect.promise(() => measureMemory(port))
    for (const { clients, idleMiB, peakMiB, way } of figures) {
      yield* Console.log(
        `${way}: ${clients} clients, ${idleMiB.toFixed(1)} MiB idle, ${peakMiB.toFixed(1)} MiB at most`
      )
    }
    for (const bar of bars) yield* Console.log(Bar.print(bar))
    if (json) yield* Console.log(JSON.stringify(figures))
  }).pipe(Network.own)).pipe(Command.withDescription("Memory of the daemon while 64 clients read 1 MB/s each"))

const transfer = Command.make(
  "transfer",
  { rounds: flags.rounds, svg, json, port: port(26_251) },
  ({ json, port, rounds, svg }) =>
    Effect.forEach(["serve", "relay"] as const, (kind) =>
      Effect.gen(function*() {
        const result = yield* Effect.promise(() => measureTransfer({ rounds, port, kind }))
        yield* report(`transfer-${kind}`, `Data planes alone, ${kind}, 256 MiB`, result, { svg, json }, [])
      }), { discard: true }).pipe(Network.own)
).pipe(Command.withDescription("Both data planes alone, beside nginx"))

const cold = Command.make("cold-files", { port: port(26_301), json }, ({ json, port }) =>
  Effect.gen(function*() {
    const figures = yield* Effect.promise(() => measureCold({ port }))
    for (const { cached: { count, p50, p99 }, coldSeconds, implementation } of figures) {
      yield* Console.log(
        `${
          implementation.padEnd(16)
        } cached blobs p50 ${p50} ms, p99 ${p99} ms (${count} of them), cold file ${coldSeconds} s`
      )
    }
    if (json) yield* Console.log(JSON.stringify(figures))
  })).pipe(
    Command.withDescription("Cached content to one client while another one waits for a slow disk (root, cgroup v1)")
  )

export const commands = [serve, relay, memory, transfer, cold] as const
