/** A node with a cluster key and a peer, which is broken in many ways, and examined by `spegel doctor` as a process. */
import { assert } from "@effect/vitest"
import type { Check, CheckName, Result, Verdict } from "@spegel-ts/spegel/doctor/Check"
import * as ContainerdPackages from "@spegel-ts/testing/containerd/ContainerdPackages"
import * as FakeRegistry from "@spegel-ts/testing/containerd/FakeRegistry"
import * as MirrorPorts from "@spegel-ts/testing/node/MirrorPorts"
import * as Node from "@spegel-ts/testing/node/Node"
import * as SpegelProcess from "@spegel-ts/testing/node/SpegelProcess"
import { run } from "@spegel-ts/testing/process/Command"
import { temporary } from "@spegel-ts/testing/TemporaryDirectory"
import { Effect, Result as Either, Schedule } from "effect"
import { mkdir, readFile, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import * as ClusterKeys from "../e2e/trust/ClusterKeys.ts"

const main = fileURLToPath(new URL("../../bundle/main.js", import.meta.url))

/** The whole of containerd's configuration of the node as it was first. */
export interface Good {
  readonly configToml: string
  readonly hostsToml: string
}

/** What `spegel doctor --output=json` printed. */
export interface Printed {
  readonly code: number
  readonly result: Result
  readonly checks: ReadonlyArray<Check>
}

const nodeName = "node-1"

export const start = Effect.fnUntraced(function*(version: ContainerdPackages.Version) {
  const upstream = yield* FakeRegistry.start({ address: "127.0.0.100" })
  const ports = yield* MirrorPorts.free
  const key = yield* ClusterKeys.make
  const directory = yield* temporary
  const own = [key.flag, `--node-name=${nodeName}`]
  const node = yield* Node.start(1, ports, upstream.host, {
    programs: yield* Effect.orDie(ContainerdPackages.fetch(version)),
    registry: [...own, `--mirrored-registries=http://${upstream.host}`],
    configuration: own
  }).pipe(Effect.orDie)
  const peerAddress = "127.0.0.3"
  yield* Effect.promise(() => mkdir(join(directory, "peer")))
  yield* SpegelProcess.start([
    "registry",
    `--data-dir=${join(directory, "peer")}`,
    "--containerd-sock=/nowhere",
    ...MirrorPorts.flags(peerAddress, ports),
    "--bootstrap-kind=static",
    `--static-bootstrap-peers=127.0.0.2:${ports.router}`,
    key.flag,
    "--node-name=node-2"
  ])
  yield* SpegelProcess.untilReady(`http://${peerAddress}:${ports.registry}`)
  yield* node.pullByCri(`${upstream.host}/team/app:v1`).pipe(Effect.orDie)

  const configPath = join(node.containerd.directory, "config.toml")
  const hostsPath = join(node.certs, upstream.host.replace(/:(\d+)$/, "_$1_"), "hosts.toml")
  const good: Good = yield* Effect.promise(async () => ({
    configToml: await readFile(configPath, "utf8"),
    hostsToml: await readFile(hostsPath, "utf8")
  }))
  const flags = [
    `--containerd-sock=${node.containerd.socket}`,
    `--containerd-content-path=${node.containerd.contentPath}`,
    `--containerd-config=${configPath}`,
    `--containerd-registry-config-path=${node.certs}`,
    `--mirrored-registries=http://${upstream.host}`,
    ...MirrorPorts.flags(node.address, ports),
    ...own
  ]

  /** Runs the command; later flags win. `wrapper` is a program that runs it. */
  const examine = (more: ReadonlyArray<string> = [], wrapper: ReadonlyArray<string> = []) =>
    Effect.gen(function*() {
      const given = new Set(more.map((flag) => flag.split("=")[0]))
      const args = [main, "doctor", "--output=json", ...flags.filter((flag) => !given.has(flag.split("=")[0])), ...more]
      const script = `"$@"; echo "exit $?"`
      const printed = yield* run("sh", ["-c", script, "sh", ...wrapper, process.execPath, ...args])
      const [, json = "", code = ""] = /^([^]*)\nexit (\d+)\n$/.exec(printed) ?? assert.fail(printed)
      return { ...JSON.parse(json), code: Number(code) } as Printed
    })

  /** What containerd has read at its last start. */
  let running = good.configToml
  /** containerd starts again with another configuration. */
  const configure = (text: string) =>
    Effect.gen(function*() {
      yield* Effect.promise(() => writeFile(configPath, text))
      running = text
      yield* Effect.orDie(node.containerd.restart)
    })

  return {
    version,
    node,
    upstream,
    ports,
    key,
    directory,
    good,
    configPath,
    hostsPath,
    examine,
    configure,
    /** Everything as it was first, and containerd ready for pulls. */
    mend: Effect.gen(function*() {
      yield* Effect.promise(async () => {
        await mkdir(join(hostsPath, ".."), { recursive: true })
        await writeFile(hostsPath, good.hostsToml)
        await writeFile(configPath, good.configToml)
      })
      if (running !== good.configToml) yield* configure(good.configToml)
      yield* node.pullByCri(`${upstream.host}/team/app:v1`).pipe(
        Effect.retry({ schedule: Schedule.spaced("250 millis"), times: 40 }),
        Effect.orDie
      )
    })
  }
})

export type ExaminedNode = Effect.Success<ReturnType<typeof start>>

/** What a set-up is expected to come to: the checks that are not ok, and the result. */
export interface Expected {
  readonly result: Result
  readonly checks: Partial<Record<CheckName, Verdict>>
  /** Each is found in the text of the check. */
  readonly says?: Partial<Record<CheckName, RegExp>>
}

const codes: Readonly<Record<Result, number>> = { proved: 0, problem: 1, "not proved": 3 }

/** What differs from what is expected, in words; empty if nothing. */
export const difference = (printed: Printed, { checks, result, says = {} }: Expected): ReadonlyArray<string> => {
  const found = Object.fromEntries(
    printed.checks.filter(({ verdict }) => verdict !== "ok").map(({ name, verdict }) => [name, verdict])
  )
  const text = (name: string) =>
    printed.checks.filter((check) => check.name === name).map(({ advice, found }) => `${found} -> ${advice}`).join("\n")
  const isSame = Either.isSuccess(Either.try(() => assert.deepStrictEqual(found, { ...checks })))
  return [
    ...isSame ? [] : [
      `found ${JSON.stringify(found)}, expected ${JSON.stringify(checks)}: ${
        Object.keys({ ...found, ...checks }).map((name) => `${name}: ${text(name)}`).join("; ")
      }`
    ],
    ...printed.result === result && printed.code === codes[result]
      ? []
      : [`${printed.result}, exit code ${printed.code}`],
    ...Object.entries(says).flatMap(([name, pattern]) =>
      pattern.test(text(name)) ? [] : [`${name} says: ${text(name)}`]
    )
  ]
}
