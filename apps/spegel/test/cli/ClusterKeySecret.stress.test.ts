import { assert, describe, it } from "@effect/vitest"
import { KeyRing } from "@spegel-ts/cluster-key/KeyRing"
import * as Kubeconfig from "@spegel-ts/testing/kubernetes/Kubeconfig"
import * as InProcess from "@spegel-ts/testing/node/InProcess"
import { Effect, Result } from "effect"
import { createServer, type IncomingMessage, type ServerResponse } from "node:http"
import { text } from "node:stream/consumers"

const secrets = "/api/v1/namespaces/mirrors/secrets"
const secret = `${secrets}/spegel-cluster-key`
const daemonSet = "/apis/apps/v1/namespaces/mirrors/daemonsets/spegel"

interface Stored {
  readonly metadata: { readonly labels?: Readonly<Record<string, string>> }
  readonly data?: Readonly<Record<string, string>>
}

/** The part of a Kubernetes API that is asked: one Secret, and one DaemonSet. */
class Cluster {
  secret: Stored | undefined
  daemonSet: object | undefined
  readonly asked: Array<string> = []
  /** Answers in place of all else; false leaves the answer to the cluster. */
  interfere: (method: string, response: ServerResponse) => boolean = () => false

  async answer(request: IncomingMessage, response: ServerResponse) {
    const [method, path] = [request.method ?? "", request.url ?? ""]
    this.asked.push(`${method} ${path}`)
    const body = await text(request)
    const send = (status: number, value: unknown = {}) =>
      response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(value))
    if (this.interfere(method, response)) return
    const found = path === secret ? this.secret : path === daemonSet ? this.daemonSet : undefined
    switch (method) {
      case "GET":
        return found === undefined ? send(404) : send(200, found)
      case "POST":
        if (this.secret !== undefined || path !== secrets) return send(409)
        this.secret = JSON.parse(body) as Stored
        return send(201)
      case "DELETE":
        if (found === undefined) return send(404)
        this.secret = undefined
        return send(200)
      default:
        return send(405)
    }
  }

  /** The text of the key; fails if there is none. */
  get key(): string {
    return Buffer.from(this.secret?.data?.["key"] ?? assert.fail("no key"), "base64").toString()
  }
}

const start = Effect.gen(function*() {
  const cluster = new Cluster()
  const server = createServer((request, response) => void cluster.answer(request, response))
  const kubeconfig = yield* Kubeconfig.serve(server)
  const run = (command: string, ...args: ReadonlyArray<string>) =>
    InProcess.run(["cluster-key", command, "--namespace=mirrors", "--secret=spegel-cluster-key", ...args], {
      KUBECONFIG_PATH: kubeconfig
    })
  return { cluster, ensure: run("ensure", "--labels=a=b,team=platform"), run }
})

const assertDone = ({ complaints, stdout, succeeded, warnings }: InProcess.Finished, words: string) => {
  assert.deepStrictEqual([complaints, warnings], [[], []])
  assert.isTrue(succeeded)
  assert.strictEqual(stdout, words)
}

const kept = "the Secret mirrors/spegel-cluster-key has a cluster key, which stays"
const created = "created the Secret mirrors/spegel-cluster-key with a new cluster key"

describe("spegel cluster-key ensure", () => {
  it.live("creates the Secret with a key, and never changes it again", () =>
    Effect.gen(function*() {
      const { cluster, ensure } = yield* start
      const first = yield* ensure
      assertDone(first, created)
      const { key } = cluster
      assert.isTrue(Result.isSuccess(KeyRing.parse(key)))
      assert.notInclude(JSON.stringify(first), key.trim())
      assert.deepStrictEqual(cluster.secret?.metadata.labels, { a: "b", team: "platform" })
      const before = cluster.secret
      assertDone(yield* ensure, kept)
      assert.strictEqual(cluster.secret, before)
      assert.deepStrictEqual(cluster.asked, [`GET ${secret}`, `POST ${secrets}`, `GET ${secret}`])
    }))

  it.live("takes the key of whoever came first", () =>
    Effect.gen(function*() {
      const { cluster, ensure } = yield* start
      const runs = yield* Effect.all(Array.from({ length: 5 }, () => ensure), { concurrency: "unbounded" })
      assert.deepStrictEqual(runs.map(({ succeeded }) => succeeded), runs.map(() => true))
      assert.lengthOf(runs.filter(({ stdout }) => stdout === created), 1)
      assert.isTrue(Result.isSuccess(KeyRing.parse(cluster.key)))
    }))

  it.live("goes on after faults, and knows a Secret whose creation it was not told of", () =>
    Effect.gen(function*() {
      const { cluster, ensure } = yield* start
      const faults = [403, 500, 401, "cut"] as const
      let at = 0
      cluster.interfere = (method, response) => {
        const fault = faults[at++]
        if (fault === "cut") response.destroy()
        else if (fault !== undefined) response.writeHead(fault).end("no")
        else if (method === "POST") {
          // The Secret is created, and the answer is lost.
          response.destroy()
          return false
        }
        return fault !== undefined
      }
      const finished = yield* ensure
      assert.deepStrictEqual([finished.complaints, finished.stdout], [[], kept])
      // The second broken connection is no news.
      assert.lengthOf(finished.warnings, 4)
      assert.isTrue(Result.isSuccess(KeyRing.parse(cluster.key)))
      assert.deepStrictEqual(cluster.asked.slice(faults.length), [`GET ${secret}`, `POST ${secrets}`, `GET ${secret}`])
    }), 30_000)

  it.live("gives up in time, with the last reason", () =>
    Effect.gen(function*() {
      const { cluster, run } = yield* start
      cluster.interfere = (_method, response) => {
        response.writeHead(403).end(JSON.stringify({ kind: "Status", message: "secrets is forbidden" }))
        return true
      }
      const began = performance.now()
      const { complaints, succeeded, warnings } = yield* run("ensure", "--timeout=500ms")
      assert.isFalse(succeeded)
      assert.isBelow(performance.now() - began, 5000)
      const words = "the Secret mirrors/spegel-cluster-key: the API server answered 403 to GET: secrets is forbidden"
      assert.deepStrictEqual(complaints, [words])
      // One reason is told once, however many tries there were.
      assert.deepStrictEqual(warnings, [`Warn ${words}`])
      assert.isAbove(cluster.asked.length, 1)
      // No answer at all.
      cluster.interfere = () => true
      const silent = yield* run("ensure", "--timeout=300ms")
      assert.deepStrictEqual(silent.complaints, ["the Secret mirrors/spegel-cluster-key: no answer within 300ms"])
    }))

  it.live("leaves a Secret without a key to a person, at once and as it is", () =>
    Effect.gen(function*() {
      const { cluster, ensure } = yield* start
      for (
        const [data, reason] of [
          [undefined, "there is no value key"],
          [{ other: "aHVudGVyMg==" }, "there is no value key"],
          [{ key: "aHVudGVyMg==" }, "line 1 is not a key"]
        ] as const
      ) {
        const stored: Stored = { metadata: {}, ...(data === undefined ? {} : { data }) }
        cluster.secret = stored
        const finished = yield* ensure
        assert.isFalse(finished.succeeded)
        assert.include(finished.complaints[0], `the Secret mirrors/spegel-cluster-key: ${reason}`)
        assert.include(finished.complaints[0], "It was not changed")
        assert.notInclude(JSON.stringify(finished), "hunter2")
        assert.strictEqual(cluster.secret, stored)
      }
      assert.isTrue(cluster.asked.every((request) => request.startsWith("GET ")))
    }))

  it.effect("says what it needs", () =>
    Effect.gen(function*() {
      for (
        const [args, reason] of [
          [["ensure", "--secret=a"], "--namespace: is needed"],
          [["ensure", "--namespace=a"], "--secret: is needed"],
          [["remove", "--namespace=a", "--secret=b"], "--daemonset: is needed"],
          [["ensure", "--namespace=a", "--secret=b"], "a kubeconfig is needed"],
          [["ensure", "--namespace=A"], `--namespace="A": `],
          [["ensure", "--labels=a"], `--labels="a": `]
        ] as const
      ) {
        const { complaints, succeeded } = yield* InProcess.run(["cluster-key", ...args])
        assert.isFalse(succeeded)
        assert.include(complaints[0], reason)
      }
    }))
})

describe("spegel cluster-key remove", () => {
  it.live("removes the Secret once its mirrors are gone or about to go", () =>
    Effect.gen(function*() {
      const { cluster, ensure, run } = yield* start
      const remove = run("remove", "--daemonset=spegel")
      yield* ensure
      cluster.daemonSet = { metadata: { name: "spegel" } }
      assertDone(yield* remove, "kept the Secret mirrors/spegel-cluster-key: the DaemonSet spegel is there")
      assert.isDefined(cluster.secret)
      cluster.daemonSet = { metadata: { name: "spegel", deletionTimestamp: "2026-01-01T00:00:00Z" } }
      assertDone(yield* remove, "removed the Secret mirrors/spegel-cluster-key")
      assert.isUndefined(cluster.secret)
      cluster.daemonSet = undefined
      assertDone(yield* remove, "the Secret mirrors/spegel-cluster-key is not there")
    }))

  it.live("keeps the Secret where it cannot be known whether mirrors are there", () =>
    Effect.gen(function*() {
      const { cluster, ensure, run } = yield* start
      yield* ensure
      cluster.interfere = (_method, response) => {
        response.writeHead(500).end("no")
        return true
      }
      const { complaints } = yield* run("remove", "--daemonset=spegel", "--timeout=300ms")
      assert.deepStrictEqual(complaints, ["the API server answered 500 to GET: no"])
      assert.isDefined(cluster.secret)
    }))
})
