import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import * as KubernetesLeaseApi from "@spegel-ts/leader-election/internal/lease/KubernetesLeaseApi"
import * as Lease from "@spegel-ts/leader-election/internal/lease/Lease"
import * as KubernetesLease from "@spegel-ts/leader-election/KubernetesLease"
import { Identity, LeaderElection } from "@spegel-ts/leader-election/LeaderElection"
import { conformanceTimes, leaderElectionConformance } from "@spegel-ts/leader-election/LeaderElectionConformance"
import * as ApiServer from "@spegel-ts/testing/kubernetes/ApiServer"
import * as FaultProxy from "@spegel-ts/testing/kubernetes/FaultProxy"
import { Context, Duration, Effect, Exit, Layer, Option, Schedule, Scope, Stream } from "effect"

const missing = ApiServer.missingPrerequisite(process.env)
const namespace = "spegel"
const everything = ["create", "list", "watch", "update"]

describe.skipIf(missing !== undefined)(
  `a Lease of a Kubernetes API${missing === undefined ? "" : ` (skipped: ${missing})`}`,
  () => {
    const scope = Scope.makeUnsafe()
    let server: ApiServer.ApiServer
    let leases = 0
    beforeAll(async () => {
      server = await Effect.runPromise(Scope.provide(ApiServer.start, scope))
    }, 900_000)
    afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

    /** A new lease, as a user with the rights `verbs` sees it; `via` is a proxy. */
    const newLease = Effect.fnUntraced(function*(verbs: ReadonlyArray<string>, via?: string) {
      const name = `lease-${leases++}`
      if (verbs.length > 0) server.roles.set(name, [{ verbs }])
      const kubeconfig = Option.some(yield* server.kubeconfig(name, via))
      return { namespace, name, kubeconfig, environment: {} }
    })
    const stored = (name: string) =>
      `/apis/coordination.k8s.io/v1/namespaces/${namespace}/leases/${encodeURIComponent(name)}`

    // Over TLS, by certificate.
    leaderElectionConformance(
      "KubernetesLease",
      Effect.map(
        Effect.suspend(() => newLease(everything)),
        (lease) => (identity) => KubernetesLease.layer({ ...lease, identity, times: conformanceTimes })
      )
    )

    it.live("refuses what was not observed, and tells what happened since", () =>
      Effect.gen(function*() {
        const options = yield* newLease(everything)
        const api = yield* KubernetesLeaseApi.make(options)
        const before = yield* api.list
        assert.isTrue(Option.isNone(before.lease))
        const claim = {
          identity: Identity.make("a"),
          durationSeconds: 10,
          now: Lease.microTime(1_764_032_533_123_456_000n)
        }
        const made = yield* api.create(Lease.created(api.name, claim))
        assert.deepStrictEqual(made.acquireTime, Option.some("2025-11-25T01:02:13.123456Z"))
        assert.strictEqual((yield* Effect.flip(api.create(Lease.created(api.name, claim))))._tag, "LeaseConflict")
        const renewed = yield* api.update(
          Lease.held(made, { ...claim, now: Lease.microTime(1_764_032_535_000_000_000n) })
        )
        assert.strictEqual(renewed.transitions, 0)
        const stolen = Lease.held(made, { ...claim, identity: Identity.make("b") })
        assert.strictEqual((yield* Effect.flip(api.update(stolen)))._tag, "LeaseConflict")
        yield* api.update(Lease.released(renewed, claim.now))

        yield* server.call("DELETE", stored(api.name))
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

    it.live("says what the server refuses and what to do, and how long to wait", () =>
      Effect.gen(function*() {
        const stranger = yield* KubernetesLeaseApi.make(yield* newLease([]))
        assert.include((yield* Effect.flip(stranger.list)).message, "does not accept this node's credentials")
        const reader = yield* KubernetesLeaseApi.make(yield* newLease(["list"]))
        const denied = yield* Effect.flip(reader.create({ metadata: { name: reader.name } }))
        assert.include(denied.message, "grant this node's account in namespace spegel the verb create")

        const way = yield* (yield* FaultProxy.start(server)).way
        const throttled = yield* KubernetesLeaseApi.make(yield* newLease(["list"], way.url))
        way.faults.throttled = 1
        way.faults.retryAfterSeconds = 7
        assert.deepStrictEqual((yield* Effect.flip(throttled.list)).retryAfter, Duration.seconds(7))
      }))

    it.live("leaves no connection behind, and gives the lease back before it goes", () =>
      Effect.gen(function*() {
        const proxy = yield* FaultProxy.start(server)
        const lease = yield* newLease(everything, (yield* proxy.way).url)
        yield* Effect.gen(function*() {
          const layer = KubernetesLease.layer({
            ...lease,
            identity: Identity.make("a"),
            times: conformanceTimes
          })
          const { leader } = Context.get(yield* Layer.build(layer), LeaderElection)
          yield* Stream.runHead(Stream.filter(leader, Option.isSome))
          assert.strictEqual(proxy.counts.open, 2)
        }).pipe(Effect.scoped)
        yield* Effect.sync(() => proxy.counts.open).pipe(
          Effect.filterOrFail((open) => open === 0, (open) => `${open} connections`),
          Effect.retry({ schedule: Schedule.spaced("20 millis"), times: 50 })
        )
        const { json } = yield* server.call("GET", stored(lease.name))
        assert.deepInclude((json as { readonly spec: object }).spec, { holderIdentity: "", leaseDurationSeconds: 1 })
      }))
  }
)
