import { assert, beforeAll, describe, it } from "@effect/vitest"
import * as ApiServer from "@spegel-ts/testing/kubernetes/ApiServer"
import * as FaultProxy from "@spegel-ts/testing/kubernetes/FaultProxy"
import { leastRoles } from "@spegel-ts/testing/kubernetes/Field"
import * as MirrorPorts from "@spegel-ts/testing/node/MirrorPorts"
import * as SpegelProcess from "@spegel-ts/testing/node/SpegelProcess"
import { temporary } from "@spegel-ts/testing/TemporaryDirectory"
import { Effect, Schedule } from "effect"
import { mkdir } from "node:fs/promises"
import { join } from "node:path"

const leaseName = "spegel-leader-election"

const layout = (directory: string) =>
  Effect.promise(async () => {
    const root = join(directory, "layout")
    await mkdir(join(root, "blobs", "sha256"), { recursive: true })
    return root
  })

const cluster = Effect.gen(function*() {
  const server = yield* ApiServer.start
  const proxy = yield* FaultProxy.start(server)
  const ports = yield* MirrorPorts.free
  let nodes = 0
  const holder = Effect.map(
    server.call("GET", `/apis/coordination.k8s.io/v1/namespaces/spegel/leases/${leaseName}`),
    ({ json }) => (json as { readonly spec?: { readonly holderIdentity?: string } }).spec?.holderIdentity ?? ""
  )

  /** A daemon on an address of its own, with a way of its own to the API server. */
  const start = Effect.fnUntraced(function*(options?: {
    readonly flags?: ReadonlyArray<string>
    readonly kubeconfig?: string
    readonly denied?: boolean
  }) {
    const address = `127.0.0.${++nodes + 1}`
    const user = `node-${nodes}`
    const directory = yield* temporary
    const { url: way } = yield* proxy.way
    server.roles.set(user, options?.denied === true ? [] : leastRoles(leaseName))
    const process = yield* SpegelProcess.start([
      "registry",
      `--store=oci-layout:${yield* layout(directory)}`,
      `--data-dir=${join(directory, "data")}`,
      ...MirrorPorts.flags(address, ports),
      "--bootstrap-kind=kubernetes",
      `--kubeconfig-path=${options?.kubeconfig ?? (yield* server.kubeconfig(user, way))}`,
      ...options?.flags ?? []
    ])
    const url = `http://${address}:${ports.registry}`
    const peers = Effect.tryPromise(() =>
      fetch(`http://${address}:${ports.metrics}/debug/peers`).then((response) => response.json())
    ).pipe(Effect.map((nodes) => (nodes as ReadonlyArray<{ readonly self?: true }>).filter(({ self }) => !self).length))
    return {
      address,
      user,
      process,
      ready: SpegelProcess.untilReady(url),
      /** Waits until it knows so many others. */
      knows: (count: number) =>
        peers.pipe(
          Effect.filterOrFail((peers) => peers >= count, (peers) => `${address} knows ${peers}, not ${count}`),
          Effect.retry({ schedule: Schedule.spaced("100 millis"), times: 450 }),
          Effect.tapError(() => Effect.logError(process.output.stderr))
        )
    }
  })
  const untilHeld = (by: (holder: string) => boolean) =>
    holder.pipe(
      Effect.filterOrFail(by, (holder) => `the lease is held by ${JSON.stringify(holder)}`),
      Effect.retry({ schedule: Schedule.spaced("100 millis"), times: 300 })
    )
  return { server, ports, start, untilHeld }
})

const untilLogged = (
  { process }: { readonly process: { readonly output: { readonly stderr: string } } },
  words: string
) =>
  Effect.sync(() => process.output.stderr).pipe(
    Effect.filterOrFail((log) => log.includes(words), (log) => `not logged: ${words}\n${log}`),
    Effect.retry({ schedule: Schedule.spaced("100 millis"), times: 300 })
  )

const missing = ApiServer.missingPrerequisite(process.env)
const note = missing === undefined ? "" : ` (skipped: ${missing})`

describe.skipIf(missing !== undefined)(`--bootstrap-kind=kubernetes${note}`, { timeout: 120_000 }, () => {
  beforeAll(() => Effect.runPromise(ApiServer.build), 900_000)

  it.live("a network forms from an empty lease, goes on without its leader and without the API server", () =>
    Effect.gen(function*() {
      const { ports, server, start, untilHeld } = yield* cluster
      const first = [yield* start(), yield* start(), yield* start()]
      for (const node of first) yield* node.ready
      for (const node of first) yield* node.knows(2)

      const leader = yield* untilHeld((holder) => holder !== "")
      assert.match(leader, /^\/ip4\/127\.0\.0\.[234]\/tcp\/\d+\/p2p\/12D3Koo\w+$/)
      const dead = first.find(({ address }) => leader.includes(`/${address}/`))
      assert.isDefined(dead)
      dead?.process.child.kill("SIGKILL")
      const rest = first.filter((node) => node !== dead)
      // The lease still names the dead one when the fourth starts.
      const fourth = yield* start()
      yield* fourth.ready
      yield* fourth.knows(2)
      yield* untilHeld((holder) => holder !== leader && holder !== "")
      for (const node of rest) yield* node.knows(2)

      yield* server.freeze
      const fifth = yield* start({
        flags: ["--bootstrap-kind=static", `--static-bootstrap-peers=${fourth.address}:${ports.router}`]
      })
      yield* fifth.ready
      yield* fifth.knows(3)
      const sixth = yield* start()
      yield* sixth.ready
      yield* untilLogged(sixth, "the API server cannot be reached: no answer within")
      yield* server.thaw
      yield* sixth.knows(4)

      sixth.process.child.kill("SIGTERM")
      assert.strictEqual((yield* sixth.process.finished).code, 0)
    }))

  it.live("says what to grant or to mend, lives on, and takes part once that is done", () =>
    Effect.gen(function*() {
      const { server, start, untilHeld } = yield* cluster
      const denied = yield* start({ denied: true })
      const misled = yield* start({ kubeconfig: "/nowhere/kubeconfig" })
      for (const node of [denied, misled]) yield* node.ready
      yield* untilLogged(denied, "list, watch and update on those with resourceNames [spegel-leader-election]")
      yield* untilLogged(misled, "/nowhere/kubeconfig")
      yield* untilLogged(misled, "check the kubeconfig")
      server.roles.set(denied.user, leastRoles(leaseName))
      yield* untilHeld((holder) => holder.includes(`/${denied.address}/`))
    }))
})
