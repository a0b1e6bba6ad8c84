/** `spegel status` and `spegel lookup` against processes; what they show of pulls is tried with the debug page. */
import { assert, describe, it } from "@effect/vitest"
import * as Terminal from "@spegel-ts/spegel/commands/Terminal"
import * as MirrorPorts from "@spegel-ts/testing/node/MirrorPorts"
import * as SpegelProcess from "@spegel-ts/testing/node/SpegelProcess"
import { temporary } from "@spegel-ts/testing/TemporaryDirectory"
import { Effect } from "effect"

const address = "127.0.0.47"

const startNode = Effect.gen(function*() {
  const ports = yield* MirrorPorts.free
  yield* SpegelProcess.start([
    "registry",
    "--containerd-sock=/nowhere",
    `--data-dir=${yield* temporary}`,
    ...MirrorPorts.flags(address, ports),
    "--bootstrap-kind=static",
    `--static-bootstrap-peers=${address}:${ports.router}`
  ])
  yield* SpegelProcess.untilReady(`http://${address}:${ports.registry}`)
  return `${address}:${ports.metrics}`
})

describe("spegel status and spegel lookup", () => {
  it.live("say how a node is, and end with 0, or with 1 if nobody has an image", () =>
    Effect.gen(function*() {
      const metrics = yield* startNode
      const status = yield* SpegelProcess.run(["status", `--metrics-addr=${metrics}`])
      assert.strictEqual(status.code, 0, status.stderr)
      assert.match(status.stdout, /^State: +ready, alone: .*$/m)
      assert.match(status.stdout, /^Cluster key: +not protected: /m)
      assert.notInclude(status.stdout, "\u001b")
      // As a pod's environment has it.
      const json = yield* SpegelProcess.run(["status", "--output=json"], { METRICS_ADDR: metrics })
      assert.deepInclude(JSON.parse(json.stdout), { pulls: [], uploads: [] })
      for (const image of ["nginx", "Not/an image"]) {
        const lookup = yield* SpegelProcess.run(["lookup", image, `--metrics-addr=${metrics}`])
        assert.strictEqual(lookup.code, 1)
        assert.match(lookup.stderr, image === "nginx" ? /docker\.io\/library\/nginx:latest/ : /invalid image reference/)
      }
    }))

  it.live("end with 3 if the mirror does not answer, and say what to look at", () =>
    Effect.gen(function*() {
      for (const command of [["status"], ["lookup", "nginx"]]) {
        const { code, stderr } = yield* SpegelProcess.run([...command, `--metrics-addr=${address}:1`])
        assert.strictEqual(code, 3)
        assert.include(stderr, "is the mirror running on this node")
      }
    }))

  it("print no control characters that a name may have", () => {
    assert.strictEqual(Terminal.printable("a\u001b[2Jb\r\nc"), "a�[2Jb��c")
  })
})
