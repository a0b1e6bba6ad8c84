/** Peers of one machine keep a registry's requests waiting, so that peers are no longer asked for it. */
import { assert, describe, it } from "@effect/vitest"
import { testImage } from "@spegel-ts/testing/content/TestImage"
import { Effect } from "effect"
import * as AttackedCluster from "./AttackedCluster.ts"
import { note } from "./Findings.ts"
import * as RogueMember from "./RogueMember.ts"
import * as RogueServer from "./RogueServer.ts"

const honest = testImage("honest")
const bait = testImage("bait")
const registry = "docker.io"
const honestPath = AttackedCluster.manifestPath("library/honest", "latest")
const baits = Array.from({ length: RogueMember.identitiesOfAddress }, (_, index) => `library/bait-${index}`)

const attack = Effect.fnUntraced(function*(
  network: string,
  { hasKey, peerAuth }: { readonly peerAuth: "require" | "off"; readonly hasKey: boolean }
) {
  const cluster = yield* AttackedCluster.make({ network, peerAuth })
  const ring = hasKey ? cluster.ring : undefined
  // What a busy machine makes slow is not to be taken for the work of the rogue.
  const victim = yield* cluster.start(2, { flags: ["--mirror-resolve-timeout=1s", "--mirror-hedge-delay=300ms"] })
  const holders = yield* Effect.forEach(
    [3, 4, 5],
    (host) => cluster.start(host, { images: { [`${registry}/library/honest:latest`]: honest } }),
    { concurrency: 3 }
  )
  yield* AttackedCluster.untilTogether([victim, ...holders])
  const address = `${network}.66`
  // At first it serves, since only peers count that have served before.
  const behaviour = { now: RogueServer.givesImage(bait) }
  const server = yield* RogueServer.start({ address, ring }, (asked) => behaviour.now(asked))
  const rogues = yield* RogueMember.joinAsMany({
    address,
    servicePort: server.port,
    bootstrap: cluster.bootstrap,
    ring
  })
  yield* Effect.forEach(
    rogues,
    (rogue, index) =>
      Effect.forkChild(rogue.advertise(`${registry}/${baits[index]}:1`, `${registry}/${baits[index]}:2`)),
    { discard: true }
  )
  const isMember = hasKey || peerAuth === "off"
  yield* AttackedCluster.until(
    isMember
      ? Effect.map(victim.members, ({ length }) => length === holders.length + rogues.length)
      : Effect.map(victim.metric("spegel_peer_auth_failures_total"), (refused) => refused >= rogues.length),
    isMember ? "all rogues are members" : "all rogues were refused"
  )
  yield* AttackedCluster.until(
    Effect.map(victim.pull(honestPath), ({ status }) => status === 200),
    "the honest image is found"
  )
  yield* Effect.sleep("1 second")
  const pullBaits = (tag: string) =>
    Effect.forEach(baits, (repository) => victim.pull(AttackedCluster.manifestPath(repository, tag)), {
      concurrency: 4,
      discard: true
    })
  yield* pullBaits("1")
  const served = server.asked.length
  behaviour.now = RogueServer.isSilent
  let refused = 0
  let right = 0
  const pullHonest = Effect.gen(function*() {
    const { body, status } = yield* victim.pull(honestPath)
    if (status === 200 && body.equals(honest.manifest)) right++
    else refused++
    yield* Effect.sleep("200 millis")
  })
  // First without a success between the failures, then beside honest pulls.
  yield* pullBaits("2")
  const attacking = yield* Effect.forkChild(pullBaits("2"))
  while (attacking.pollUnsafe() === undefined) yield* pullHonest
  for (let pull = 0; pull < 10; pull++) yield* pullHonest
  const openings = yield* victim.metric("spegel_mirror_circuit_openings_total")
  return { openings, refused, right, server, served, holders, victim, unanswered: server.asked.length - served }
})

const found = ({ openings, refused, right, unanswered }: Effect.Success<ReturnType<typeof attack>>) =>
  `${unanswered} requests kept waiting: circuit opened ${openings} times; of ${
    right + refused
  } honest pulls beside, ${right} served by peers`

/** Honest pulls come from honest peers. */
const assertServed = ({ refused, right }: Effect.Success<ReturnType<typeof attack>>) =>
  assert.isAtLeast(right, 9 * refused)

describe("a machine whose peers keep requests waiting", { timeout: 120_000 }, () => {
  it.live("is not asked without the key", () =>
    Effect.gen(function*() {
      const attacked = yield* attack("127.81.11", { peerAuth: "require", hasKey: false })
      assert.deepStrictEqual(attacked.server.asked, [])
      assert.strictEqual(attacked.openings, 0)
      assertServed(attacked)
      yield* note("16 silent peers", "has no key", found(attacked))
    }))

  it.live("shuts no registry off if it has the key", () =>
    Effect.gen(function*() {
      const attacked = yield* attack("127.81.12", { peerAuth: "require", hasKey: true })
      assert.isAtLeast(attacked.served, baits.length)
      assert.isAtLeast(attacked.unanswered, 5)
      assert.strictEqual(attacked.openings, 0)
      assertServed(attacked)
      assert.strictEqual((yield* attacked.victim.members).length, attacked.holders.length + baits.length)
      yield* note("16 silent peers", "has the key", found(attacked))
    }))

  it.live("keeps requests waiting where nobody proves anything", () =>
    Effect.gen(function*() {
      const attacked = yield* attack("127.81.13", { peerAuth: "off", hasKey: false })
      assert.isAtLeast(attacked.unanswered, 5)
      yield* note("16 silent peers", "off", found(attacked))
    }))
})
