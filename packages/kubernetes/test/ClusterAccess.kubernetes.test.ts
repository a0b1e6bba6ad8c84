import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import * as ApiClient from "@spegel-ts/kubernetes/ApiClient"
import * as ClusterAccess from "@spegel-ts/kubernetes/ClusterAccess"
import * as ApiServer from "@spegel-ts/testing/kubernetes/ApiServer"
import * as FaultProxy from "@spegel-ts/testing/kubernetes/FaultProxy"
import { Duration, Effect, Exit, Option, Schedule, Scope, Stream } from "effect"
import { chmod, mkdtemp, readFile, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"

const missing = ApiServer.missingPrerequisite(process.env)
const leases = "/apis/coordination.k8s.io/v1/namespaces/spegel/leases"
const deadline = Duration.seconds(10)

describe.skipIf(missing !== undefined)(
  `a Kubernetes API${missing === undefined ? "" : ` (skipped: ${missing})`}`,
  () => {
    const scope = Scope.makeUnsafe()
    let server: ApiServer.ApiServer
    let directory: string
    let files = 0
    beforeAll(async () => {
      directory = await mkdtemp(join(tmpdir(), "spegel-access-"))
      server = await Effect.runPromise(Scope.provide(ApiServer.start, scope))
    }, 900_000)
    afterAll(async () => {
      await Effect.runPromise(Scope.close(scope, Exit.void))
      await rm(directory, { recursive: true })
    })

    const path = (name: string) => join(directory, name)
    const write = (name: string, text: string) => Effect.promise(() => writeFile(path(name), text))
    const grant = (...users: ReadonlyArray<string>) => {
      for (const user of users) server.roles.set(user, [{ verbs: ["list", "watch"] }])
    }

    /** A kubeconfig for the server's own address, checked by its certificate. */
    const kubeconfig = (user: unknown, cluster: object = {}) => {
      const name = `kubeconfig-${files++}`
      const text = JSON.stringify({
        "current-context": "here",
        contexts: [{ name: "here", context: { cluster: "c", user: "u" } }],
        clusters: [{ name: "c", cluster: { server: server.url, "certificate-authority": server.caPath, ...cluster } }],
        users: [{ name: "u", user }]
      })
      return Effect.as(write(name, text), path(name))
    }

    /** A client, and the status of its list of leases. */
    const connect = Effect.fnUntraced(function*(options: ClusterAccess.AccessOptions) {
      const client = yield* ApiClient.make(yield* ClusterAccess.make(options))
      return { client, list: client.request({ method: "GET", path: leases }, deadline) }
    })
    const connectBy = (kubeconfig: string) => connect({ kubeconfig: Option.some(kubeconfig), environment: process.env })
    const status = ({ list }: Effect.Success<ReturnType<typeof connect>>) => Effect.map(list, ({ status }) => status)
    const statusBy = (kubeconfig: string) => Effect.flatMap(connectBy(kubeconfig), status)
    /** Why there is no answer. */
    const reason = (kubeconfig: string) =>
      connectBy(kubeconfig).pipe(Effect.flatMap(status), Effect.flip, Effect.map(({ message }) => message))

    it.live("lets in by token, token file that rotates, and client certificate", () =>
      Effect.gen(function*() {
        grant("plain", "rotated", "certified")
        assert.strictEqual(yield* statusBy(yield* kubeconfig({ token: "plain" })), 200)

        yield* write("token", "outdated\n")
        const rotating = yield* connectBy(yield* kubeconfig({ tokenFile: "token" }))
        assert.strictEqual(yield* status(rotating), 401)
        yield* write("token", "rotated\n")
        assert.strictEqual(yield* status(rotating), 200)

        const { cert, key } = yield* server.clientCertificate("certified")
        assert.strictEqual(
          yield* statusBy(yield* kubeconfig({ "client-certificate": cert, "client-key": key })),
          200
        )
        const inline = (file: string) => Effect.promise(() => readFile(file, "base64"))
        const data = yield* kubeconfig(
          { "client-certificate-data": yield* inline(cert), "client-key-data": yield* inline(key) },
          { "certificate-authority": undefined, "certificate-authority-data": yield* inline(server.caPath) }
        )
        assert.strictEqual(yield* statusBy(data), 200)
      }))

    it.live("lets in by a credential plugin, which runs once", () =>
      Effect.gen(function*() {
        grant("plugged")
        yield* write(
          "plugin",
          `#!/bin/sh
echo run >> "$(dirname "$0")/runs"
test -n "$KUBERNETES_EXEC_INFO" && test "$EXTRA" = yes || exit 3
echo '{"kind":"ExecCredential","status":{"token":"plugged"}}'
`
        )
        yield* Effect.promise(() => chmod(path("plugin"), 0o755))
        const exec = { apiVersion: "client.authentication.k8s.io/v1", command: "./plugin" }
        const plugged = yield* connectBy(
          yield* kubeconfig({ exec: { ...exec, env: [{ name: "EXTRA", value: "yes" }] } })
        )
        assert.deepStrictEqual([yield* status(plugged), yield* status(plugged)], [200, 200])
        assert.strictEqual(yield* Effect.promise(() => readFile(path("runs"), "utf8")), "run\n")
        assert.include(yield* reason(yield* kubeconfig({ exec })), `${path("plugin")} failed (3)`)
      }))

    it.live("lets in by a pod's service account, whose token rotates", () =>
      Effect.gen(function*() {
        grant("account")
        const url = new URL(server.url)
        yield* write("ca.crt", yield* Effect.promise(() => readFile(server.caPath, "utf8")))
        yield* write("token", "account")
        const inPod = (environment: ClusterAccess.Environment) =>
          connect({ kubeconfig: Option.none(), serviceAccount: directory, environment })
        const account = yield* inPod({ KUBERNETES_SERVICE_HOST: url.hostname, KUBERNETES_SERVICE_PORT: url.port })
        assert.strictEqual(yield* status(account), 200)
        yield* write("token", "account-2")
        assert.strictEqual(yield* status(account), 401)
        grant("account-2")
        assert.strictEqual(yield* status(account), 200)
        assert.include((yield* Effect.flip(inPod({}))).message, "a kubeconfig is needed")
      }))

    it.live("says what is wrong with a kubeconfig", () =>
      Effect.gen(function*() {
        const wrong = { "current-context": "here", contexts: [{ name: "here", context: { cluster: "c", user: "u" } }] }
        for (
          const [text, words] of [
            ["a: [", "is not YAML"],
            ["[]", "is not a kubeconfig"],
            ["{}", "names no current-context"],
            [JSON.stringify({ "current-context": "x" }), `has no context "x"`],
            [JSON.stringify(wrong), `has no cluster "c"`],
            [JSON.stringify({ ...wrong, clusters: [{ name: "c", cluster: { server: "s" } }] }), `has no user "u"`]
          ] as const
        ) {
          yield* write("wrong", text)
          const message = yield* reason(path("wrong"))
          assert.include(message, words)
          assert.include(message, "check the kubeconfig")
        }
        const reasonOf = (user: unknown, cluster?: object) => Effect.flatMap(kubeconfig(user, cluster), reason)
        assert.include(yield* reason(path("absent")), "the kubeconfig cannot be read")
        assert.include(yield* reasonOf({}, { server: "ftp://x" }), `"ftp://x" is not an http or https URL`)
        assert.include(yield* reasonOf({}, { "proxy-url": "http://x" }), "proxy-url")
        assert.include(yield* reasonOf({ "auth-provider": { name: "gcp" } }), "auth-provider")
        assert.include(yield* reasonOf({ tokenFile: "gone" }), "the token cannot be read")
        assert.include(yield* reasonOf({}, { server: "https://127.0.0.1:1" }), "ECONNREFUSED")
        // Another's certificate.
        const { cert } = yield* server.clientCertificate("other")
        assert.match(yield* reasonOf({}, { "certificate-authority": cert }), /certificate/)
      }))

    it.live("uses one connection for its requests and one for its watch, and leaves none behind", () =>
      Effect.gen(function*() {
        grant("thrifty")
        const proxy = yield* FaultProxy.start(server)
        const through = yield* server.kubeconfig("thrifty", (yield* proxy.way).url)
        yield* Effect.gen(function*() {
          const { client, list } = yield* connectBy(through)
          yield* list
          const watch = yield* client.lines({ method: "GET", path: `${leases}?watch=true` }, deadline)
          assert.isTrue(Stream.isStream(watch))
          for (let request = 0; request < 5; request++) yield* list
          assert.strictEqual(proxy.counts.connections, 2)
          assert.strictEqual(proxy.counts.open, 2)
        }).pipe(Effect.scoped)
        yield* Effect.sync(() => proxy.counts.open).pipe(
          Effect.filterOrFail((open) => open === 0, (open) => `${open} connections`),
          Effect.retry({ schedule: Schedule.spaced("20 millis"), times: 50 })
        )
      }))
  }
)
