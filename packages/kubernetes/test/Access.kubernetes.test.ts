import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import * as KubernetesLease from "@spegel-ts/leader-election/internal/lease/KubernetesLease"
import * as Lease from "@spegel-ts/leader-election/internal/lease/Lease"
import { Identity, LeaderElection } from "@spegel-ts/leader-election/LeaderElection"
import { conformanceTimes, leaderElectionConformance } from "@spegel-ts/leader-election/LeaderElectionConformance"
import * as ApiServer from "@spegel-ts/testing/kubernetes/ApiServer"
import * as FaultProxy from "@spegel-ts/testing/kubernetes/FaultProxy"
import { Context, Duration, Effect, Exit, Layer, Option, Schedule, Scope, Stream } from "effect"
import { chmod, mkdtemp, readFile, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"

const missing = ApiServer.missingPrerequisite(process.env)
const everything = [{ verbs: ["create", "list", "watch", "update"] }]
const namespace = "spegel"

describe.skipIf(missing !== undefined)(
  `a Kubernetes API${missing === undefined ? "" : ` (skipped: ${missing})`}`,
  () => {
    const scope = Scope.makeUnsafe()
    let server: ApiServer.ApiServer
    let directory: string
    let leases = 0
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
    const newName = () => `lease-${leases++}`
    const apiOf = (kubeconfig: string, name = newName()) =>
      KubernetesLease.make({ namespace, name, kubeconfig: Option.some(kubeconfig), environment: process.env })

    /** A kubeconfig for the server's own address, checked by its certificate. */
    const kubeconfig = (user: unknown, cluster: unknown = {}, name = `kubeconfig-${leases++}`) =>
      Effect.as(
        write(
          name,
          JSON.stringify({
            "current-context": "here",
            contexts: [{ name: "here", context: { cluster: "c", user: "u" } }],
            clusters: [{
              name: "c",
              cluster: { server: server.url, "certificate-authority": server.caPath, ...cluster as object }
            }],
            users: [{ name: "u", user }]
          })
        ),
        path(name)
      )
    const hint = (kubeconfig: string) =>
      Effect.flatMap(apiOf(kubeconfig), ({ list }) => Effect.map(Effect.flip(list), ({ message }) => message))

    // Over TLS, by certificate.
    leaderElectionConformance(
      "KubernetesLease",
      Effect.sync(() => {
        const name = newName()
        server.roles.set("conformance", everything)
        return (identity: Identity) =>
          LeaderElection.layerKubernetes({
            namespace,
            name,
            kubeconfig: Option.some(path("conformance")),
            environment: {},
            identity,
            times: conformanceTimes
          })
      }).pipe(Effect.tap(() => kubeconfig({ token: "conformance" }, {}, "conformance")))
    )

    it.live("lets in by token, token file that rotates, client certificate and credential plugin", () =>
      Effect.gen(function*() {
        for (const user of ["plain", "rotated", "certified", "plugged"]) server.roles.set(user, everything)
        yield* Effect.flatMap(apiOf(yield* kubeconfig({ token: "plain" })), ({ list }) => list)

        yield* write("token", "outdated\n")
        const rotating = yield* apiOf(yield* kubeconfig({ tokenFile: "token" }))
        assert.include((yield* Effect.flip(rotating.list)).message, "does not accept this node's credentials")
        yield* write("token", "rotated\n")
        yield* rotating.list

        const { cert, key } = yield* server.clientCertificate("certified")
        yield* Effect.flatMap(
          apiOf(yield* kubeconfig({ "client-certificate": cert, "client-key": key })),
          ({ list }) => list
        )
        const inline = (file: string) => Effect.promise(() => readFile(file, "base64"))
        const data = yield* kubeconfig(
          { "client-certificate-data": yield* inline(cert), "client-key-data": yield* inline(key) },
          { "certificate-authority": undefined, "certificate-authority-data": yield* inline(server.caPath) }
        )
        yield* Effect.flatMap(apiOf(data), ({ list }) => list)

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
        const plugged = yield* apiOf(yield* kubeconfig({ exec: { ...exec, env: [{ name: "EXTRA", value: "yes" }] } }))
        yield* plugged.list
        yield* plugged.list
        assert.strictEqual(yield* Effect.promise(() => readFile(path("runs"), "utf8")), "run\n")
        assert.include(yield* hint(yield* kubeconfig({ exec })), `${path("plugin")} failed (3)`)
      }))

    it.live("lets in by a pod's service account, whose token rotates", () =>
      Effect.gen(function*() {
        server.roles.set("account", everything)
        const url = new URL(server.url)
        yield* write("ca.crt", yield* Effect.promise(() => readFile(server.caPath, "utf8")))
        yield* write("token", "account")
        const inPod = (environment: Record<string, string>) =>
          KubernetesLease.make({
            namespace,
            name: newName(),
            kubeconfig: Option.none(),
            serviceAccount: directory,
            environment
          })
        const account = yield* inPod({ KUBERNETES_SERVICE_HOST: url.hostname, KUBERNETES_SERVICE_PORT: url.port })
        yield* account.list
        yield* write("token", "account-2")
        assert.include((yield* Effect.flip(account.list)).message, "does not accept")
        server.roles.set("account-2", everything)
        yield* account.list
        assert.include((yield* Effect.flip((yield* inPod({})).list)).message, "a kubeconfig is needed")
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
          const message = yield* hint(path("wrong"))
          assert.include(message, words)
          assert.include(message, "check the kubeconfig")
        }
        assert.include(
          yield* hint(yield* kubeconfig({}, { server: "ftp://x" })),
          `"ftp://x" is not an http or https URL`
        )
        assert.include(yield* hint(yield* kubeconfig({}, { "proxy-url": "http://x" })), "proxy-url")
        assert.include(yield* hint(yield* kubeconfig({ "auth-provider": { name: "gcp" } })), "auth-provider")
        assert.include(yield* hint(yield* kubeconfig({ tokenFile: "gone" })), "the token cannot be read")
        assert.include(yield* hint(yield* kubeconfig({}, { server: "https://127.0.0.1:1" })), "ECONNREFUSED")
        // Another's certificate.
        const { cert } = yield* server.clientCertificate("other")
        assert.match(
          yield* hint(yield* kubeconfig({}, { "certificate-authority": cert })),
          /cannot be reached: .*certificate/
        )
      }))

    it.live("refuses what was not observed, and tells what happened since", () =>
      Effect.gen(function*() {
        server.roles.set("writer", everything)
        const name = newName()
        const api = yield* apiOf(yield* kubeconfig({ token: "writer" }), name)
        const before = yield* api.list
        assert.isTrue(Option.isNone(before.lease))
        const claim = {
          identity: Identity.make("a"),
          durationSeconds: 10,
          now: Lease.microTime(1_764_032_533_123_456_000n)
        }
        const made = yield* api.create(Lease.created(name, claim))
        assert.deepStrictEqual(made.acquireTime, Option.some("2025-11-25T01:02:13.123456Z"))
        assert.strictEqual((yield* Effect.flip(api.create(Lease.created(name, claim))))._tag, "LeaseConflict")
        const renewed = yield* api.update(
          Lease.held(made, { ...claim, now: Lease.microTime(1_764_032_535_000_000_000n) })
        )
        assert.strictEqual(renewed.transitions, 0)
        const stolen = Lease.held(made, { ...claim, identity: Identity.make("b") })
        assert.strictEqual((yield* Effect.flip(api.update(stolen)))._tag, "LeaseConflict")
        yield* api.update(Lease.released(renewed, claim.now))

        yield* server.call("DELETE", `/apis/coordination.k8s.io/v1/namespaces/${namespace}/leases/${name}`)
        assert.strictEqual((yield* Effect.flip(api.update(Lease.held(renewed, claim))))._tag, "LeaseConflict")
        const events = yield* Effect.flatMap(
          api.watch(before.resourceVersion),
          (events) => events.pipe(Stream.filter(({ _tag }) => _tag !== "Bookmark"), Stream.take(4), Stream.runCollect)
        )
        assert.deepStrictEqual(events.map(({ _tag }) => _tag), ["Changed", "Changed", "Changed", "Deleted"])

        const expired = yield* Effect.flip(
          Effect.flatMap(api.watch("1"), (events) => Stream.runDrain(events))
        )
        assert.strictEqual(expired._tag, "WatchExpired")
      }))

    it.live("uses one connection for its requests and one for its watch", () =>
      Effect.gen(function*() {
        server.roles.set("thrifty", everything)
        const proxy = yield* FaultProxy.start(server)
        const way = yield* proxy.way
        const kubeconfig = yield* server.kubeconfig("thrifty", way.url)
        const api = yield* apiOf(kubeconfig)
        const { resourceVersion } = yield* api.list
        yield* Effect.asVoid(api.watch(resourceVersion))
        for (let request = 0; request < 5; request++) yield* api.list
        assert.strictEqual(proxy.counts.connections, 2)
        way.faults.throttled = 1
        way.faults.retryAfterSeconds = 7
        const { retryAfter } = yield* Effect.flip(api.list)
        assert.deepStrictEqual(retryAfter, Duration.seconds(7))
      }))

    it.live("leaves no connection behind, and gives the lease back before it goes", () =>
      Effect.gen(function*() {
        server.roles.set("leaver", everything)
        const proxy = yield* FaultProxy.start(server)
        const name = newName()
        const kubeconfig = Option.some(yield* server.kubeconfig("leaver", (yield* proxy.way).url))
        const layer = LeaderElection.layerKubernetes({
          namespace,
          name,
          kubeconfig,
          environment: {},
          identity: Identity.make("a"),
          times: conformanceTimes
        })
        yield* Effect.gen(function*() {
          const { leader } = Context.get(yield* Layer.build(layer), LeaderElection)
          yield* Stream.runHead(Stream.filter(leader, Option.isSome))
          assert.strictEqual(proxy.counts.open, 2)
        }).pipe(Effect.scoped)
        yield* Effect.sync(() => proxy.counts.open).pipe(
          Effect.filterOrFail((open) => open === 0, (open) => `${open} connections`),
          Effect.retry({ schedule: Schedule.spaced("20 millis"), times: 50 })
        )
        const { json } = yield* server.call(
          "GET",
          `/apis/coordination.k8s.io/v1/namespaces/${namespace}/leases/${name}`
        )
        assert.deepInclude((json as { readonly spec: object }).spec, { holderIdentity: "", leaseDurationSeconds: 1 })
      }))
  }
)
