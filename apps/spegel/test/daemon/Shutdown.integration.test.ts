import { assert, describe, it } from "@effect/vitest"
import * as OciLayoutWriter from "@spegel-ts/content/OciLayoutWriter"
import * as RandomImage from "@spegel-ts/testing/content/RandomImage"
import * as MirrorPorts from "@spegel-ts/testing/node/MirrorPorts"
import * as SpegelProcess from "@spegel-ts/testing/node/SpegelProcess"
import { temporary } from "@spegel-ts/testing/TemporaryDirectory"
import { Effect, Schedule } from "effect"

const reference = { registry: "held.example", repository: "team/app", tag: "v1" }
const manifest = "/v2/team/app/manifests/v1?ns=held.example"

const statusOf = (url: string) =>
  Effect.tryPromise((signal) => fetch(url, { signal, headers: { connection: "close" } })).pipe(
    Effect.map(({ status }) => status)
  )

const eventually = (effect: Effect.Effect<number, unknown>, expected: number) =>
  effect.pipe(
    Effect.filterOrFail((value) => value === expected, (value) => new Error(`${value} instead of ${expected}`)),
    Effect.retry({ schedule: Schedule.spaced("50 millis"), times: 400 })
  )

/** A mirror that holds an image, and one that holds none and is its peer. */
const pair = Effect.fnUntraced(function*(flags: ReadonlyArray<string>) {
  const layout = yield* temporary
  yield* RandomImage.write({ writer: yield* OciLayoutWriter.make({ root: layout }), reference, layerSizes: [1] })
  const empty = yield* temporary
  yield* OciLayoutWriter.make({ root: empty })
  const ports = yield* MirrorPorts.free
  const start = Effect.fnUntraced(function*(address: string, store: string) {
    const process = yield* SpegelProcess.start([
      "registry",
      `--store=oci-layout:${store}`,
      `--data-dir=${yield* temporary}`,
      ...MirrorPorts.flags(address, ports),
      "--bootstrap-kind=static",
      `--static-bootstrap-peers=127.0.0.2:${ports.router},127.0.0.3:${ports.router}`,
      "--mirror-resolve-timeout=5s",
      ...flags
    ])
    return { ...process, url: `http://${address}:${ports.registry}` }
  })
  const holder = yield* start("127.0.0.2", layout)
  const other = yield* start("127.0.0.3", empty)
  yield* Effect.forEach([holder, other], ({ url }) => SpegelProcess.untilReady(url))
  yield* eventually(statusOf(other.url + manifest), 200)
  return { holder, other }
})

describe("a mirror that is stopped", { timeout: 120_000 }, () => {
  it.live("says so, and serves containerd and peers on until the delay is over; another signal changes nothing", () =>
    Effect.gen(function*() {
      // Longer than the test, which ends it.
      const { holder, other } = yield* pair(["--shutdown-delay=1h"])
      holder.child.kill("SIGTERM")
      yield* eventually(statusOf(`${holder.url}/readyz`), 503)
      holder.child.kill("SIGTERM")
      holder.child.kill("SIGINT")
      for (const path of ["/livez", manifest]) assert.strictEqual(yield* statusOf(holder.url + path), 200)
      assert.strictEqual(yield* statusOf(other.url + manifest), 200)
      assert.strictEqual(yield* statusOf(`${holder.url}/readyz`), 503)
      assert.isNull(holder.child.exitCode)
      assert.include(holder.output.stderr, "\"portOpenFor\":\"1h\"")
    }))

  it.live("ends with 0 after the delay, and at once where there is none", () =>
    Effect.gen(function*() {
      for (const delay of ["1s", "0s"]) {
        const { holder, other } = yield* pair([`--shutdown-delay=${delay}`])
        holder.child.kill("SIGTERM")
        yield* eventually(statusOf(other.url + manifest), 404)
        const { code, stderr } = yield* holder.finished
        assert.strictEqual(code, 0)
        assert.strictEqual(stderr.includes("portOpenFor"), delay === "1s")
        assert.match(stderr.trim().split("\n").at(-1) ?? "", /"msg":"stopped"/)
      }
    }))
})
