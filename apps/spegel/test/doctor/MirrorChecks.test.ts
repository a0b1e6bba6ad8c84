import { assert, describe, it } from "@effect/vitest"
import * as MirrorChecks from "@spegel-ts/spegel/doctor/MirrorChecks"
import * as MirrorProbe from "@spegel-ts/spegel/doctor/MirrorProbe"
import { newRing } from "@spegel-ts/testing/ClusterKeys"
import { freePort } from "@spegel-ts/testing/network/FreePort"
import * as LocalServer from "@spegel-ts/testing/network/LocalServer"
import { Effect, Option } from "effect"
import { createServer } from "node:http"

const open = MirrorProbe.Answerer.Mirror({ isOpen: true })
const closed = MirrorProbe.Answerer.Mirror({ isOpen: false })
const required = { mode: "require", path: "/key" } as const

/** Answers everything with this. */
const serverOf = (status: number, body: string) =>
  Effect.map(
    LocalServer.listen(createServer((_, response) => response.writeHead(status).end(body))),
    (port) => `http://127.0.0.1:${port}`
  )

describe("MirrorChecks", () => {
  it("judges the cluster key by the settings, and by what the mirror does", () => {
    const keys = Option.some(newRing())
    const verdict = (check: Parameters<typeof MirrorChecks.clusterKey>[0]) => MirrorChecks.clusterKey(check).verdict
    assert.strictEqual(verdict({ answerer: closed, choice: required, keys }), "ok")
    assert.strictEqual(verdict({ answerer: open, choice: required, keys }), "problem")
    assert.strictEqual(verdict({ answerer: closed, choice: required, keys: Option.some("unreadable") }), "problem")
    assert.strictEqual(verdict({ answerer: open, choice: { mode: "prefer", path: "/key" }, keys }), "warning")
    assert.strictEqual(verdict({ answerer: open, choice: { mode: "off" }, keys: Option.none() }), "warning")
  })

  it.live("says what a mirror waits for that is not ready", () =>
    Effect.gen(function*() {
      const waiting = yield* serverOf(503, `{"errors":[{"code":"UNAVAILABLE","message":"the router is looking"}]}`)
      const { found, verdict } = yield* MirrorChecks.ready(waiting)
      assert.deepStrictEqual([verdict, found], ["problem", "the mirror is not ready: the router is looking"])
      assert.strictEqual((yield* MirrorChecks.ready(yield* serverOf(200, "{}"))).verdict, "ok")
    }))

  it.live("takes nothing for a router that only accepts connections", () =>
    Effect.gen(function*() {
      const address = (port: number) => ({ host: Option.some("127.0.0.1"), port })
      const server = yield* serverOf(200, "")
      const check = yield* MirrorChecks.routerPort(address(Number(new URL(server).port)))
      assert.strictEqual(check.verdict, "problem")
      const nobody = yield* MirrorChecks.routerPort(address(yield* freePort))
      assert.include(nobody.found, "ECONNREFUSED")
    }))

  it.live("knows a mirror by its errors, also one that refuses to answer", () =>
    Effect.gen(function*() {
      const refusing = yield* serverOf(
        404,
        `{"errors":[{"message":"spegel-ts: this mirror serves only nodes of its cluster"}]}`
      )
      assert.deepStrictEqual(yield* MirrorProbe.ask(refusing), closed)
      const other = yield* MirrorProbe.ask(yield* serverOf(404, `{"errors":[]}`))
      assert.strictEqual(other._tag, "Other")
    }))
})
