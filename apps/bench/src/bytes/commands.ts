/** `npm run bench -- serve`, `relay`, `latency`, `memory` and `cold-files`. */
import { Console, Effect, Option } from "effect"
import { Command, Flag } from "effect/cli"
import * as Bar from "../Bar.ts"
import { json, svg } from "../Flags.ts"
import * as Plot from "../Plot.ts"
import { alone } from "./alone.ts"
import { cold as measureCold } from "./cold.ts"
import type { Figures } from "./Comparison.ts"
import { latency as measureLatency } from "./latency.ts"
import type { Target } from "./load/Load.ts"
import * as Network from "./load/Network.ts"
import { memory as measureMemory } from "./memory.ts"
import { relay as measureRelay } from "./relay.ts"
import { type Result, serve as measureServe } from "./serve.ts"

const port = (fallback: number) =>
  Flag.Int("port").pipe(Flag.withDescription("First of the ports that are used"), Flag.withDefault(fallback))

const flags = {
  rounds: Flag.Int("rounds").pipe(Flag.withDescription("Rounds of each implementation"), Flag.withDefault(5)),
  server: Flag.String("server").pipe(
    Flag.withDescription(
      "name=http://HOST:PORT/PATH of a blob that another server has or mirrors, or name=PID=http://... to measure its CPU time too; a server of this machine has to listen on all of its addresses"
    ),
    Flag.atLeast(0)
  ),
  svg,
  json
}

/** Another server, as `--server` names it. */
const parse = (machine: string) => (text: string): Target => {
  const match = /^([^=]+)=(?:(\d+)=)?(http:\/\/.+)$/.exec(text)
  const url = URL.parse(match?.[3] ?? "")
  if (match === null || url === null) throw new Error(`--server: ${text} is not name=http://HOST:PORT/PATH`)
  return {
    name: match[1] ?? "",
    pid: match[2] === undefined ? undefined : Number(match[2]),
    host: /^(?:localhost|127\..*)$/.test(url.hostname) ? machine : url.hostname,
    port: Number(url.port || 80),
    path: url.pathname + url.search,
    smallPath: undefined
  }
}

const cell = (value: number | null, digits: number) => (value === null ? "-" : value.toFixed(digits)).padStart(15)

const table = (figures: ReadonlyArray<Figures>) => [
  ["".padEnd(16), "clients".padStart(8)].join("") +
  ["GiB/s", "CPU-s/GiB", "its peer's", "first byte p50", "p99 ms"].map((title) => title.padStart(15)).join(""),
  ...figures.map((line) =>
    line.implementation.padEnd(16) + String(line.clients).padStart(8) +
    [
      cell(line.gibPerSecond, 2),
      cell(line.cpuSecondsPerGib, 3),
      cell(line.peerCpuSecondsPerGib, 3),
      cell(line.firstByteMs?.p50 ?? null, 1),
      cell(line.firstByteMs?.p99 ?? null, 1)
    ].join("")
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

/** A JSON object a line. */
const printLines = (lines: ReadonlyArray<object>) =>
  Effect.forEach(lines, (line) => Console.log(JSON.stringify(line)), { discard: true })

const report = Effect.fnUntraced(function*(
  name: string,
  title: string,
  { bars, figures, otherCpus }: Result,
  options: { readonly svg: Option.Option<string>; readonly json: boolean },
  more: ReadonlyArray<string>
) {
  for (const line of [...table(figures), ...more]) yield* Console.log(line)
  yield* Console.log(`others used ${otherCpus.toFixed(2)} CPUs meanwhile\n`)
  yield* Bar.printAll(bars)
  if (Option.isSome(options.svg)) {
    const directory = options.svg.value
    yield* Effect.promise(() => Plot.write(directory, name, plot(title, figures)))
  }
  if (options.json) yield* printLines(figures)
})

const serve = Command.make(
  "serve",
  { ...flags, port: port(26_101) },
  ({ json, port, rounds, server, svg }) =>
    Network.own({ machine: server.length > 0 }, (hosts) =>
      Effect.gen(function*() {
        const others = server.map(parse(hosts.machine))
        const result = yield* Effect.promise(() => measureServe({ hosts, rounds, port, others }))
        const { bareRequestsPerSecond, requestsPerSecond } = result.manifests
        yield* report("serve", "Own content to clients on another host, 256 MiB from the page cache", result, {
          svg,
          json
        }, [`small manifests: ${requestsPerSecond} a second, bare node:http ${bareRequestsPerSecond}`])
      }))
).pipe(
  Command.withDescription("Own content to clients on another host, by both data planes, beside nginx and node:http")
)

const relay = Command.make(
  "relay",
  { ...flags, port: port(26_151) },
  ({ json, port, rounds, server, svg }) =>
    Network.own({ machine: server.length > 0 }, (hosts) =>
      Effect.gen(function*() {
        const others = server.map(parse(hosts.machine))
        const result = yield* Effect.promise(() => measureRelay({ hosts, rounds, port, others }))
        yield* report("relay", "The bytes of a peer on another host to clients, 256 MiB", result, { svg, json }, [])
      }))
).pipe(Command.withDescription("A peer's bytes to clients, by both data planes, beside nginx's proxy and node:http"))

const memory = Command.make(
  "memory",
  { port: port(26_201), json },
  ({ json, port }) =>
    Network.own({ machine: false }, (hosts) =>
      Effect.gen(function*() {
        const { bars, figures } = yield* Effect.promise(() => measureMemory(hosts, port))
        for (const { idleMiB, implementation, load, peakMiB, refused, way, withKernelMiB } of figures) {
          yield* Console.log(
            `${`${implementation} ${way}, ${load}`.padEnd(40)} ${idleMiB.toFixed(1)} MiB idle, ${
              peakMiB.toFixed(1)
            } MiB ` +
              `at most, ${withKernelMiB.toFixed(1)} MiB with sockets and pipes, ${refused} refused`
          )
        }
        yield* Bar.printAll(bars)
        if (json) yield* printLines(figures)
      }))
).pipe(Command.withDescription("Memory of the daemon while it moves large blobs to fast and to slow clients"))

const latency = Command.make(
  "latency",
  { port: port(26_401), json },
  ({ json, port }) =>
    Network.own({ machine: false }, (hosts) =>
      Effect.gen(function*() {
        const held = yield* Effect.promise(() => measureLatency(hosts, port))
        const lone = yield* Effect.promise(() => alone(hosts, port))
        const bars = [...held.bars, ...lone.bars]
        const figures = [...held.figures, ...lone.figures]
        for (const { count, name, others, p50, p99 } of figures) {
          yield* Console.log(
            `${name.padEnd(22)} p50 ${p50.toFixed(2)} ms, p99 ${p99.toFixed(2)} ms (${count})${
              others === 0 ? "" : `, ${others} with another status`
            }`
          )
        }
        yield* Bar.printAll(bars)
        if (json) yield* printLines(figures)
      }))
).pipe(Command.withDescription("First byte of blobs of 1 KiB that a peer on another host holds"))

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

export const commands = [serve, relay, latency, memory, cold] as const
