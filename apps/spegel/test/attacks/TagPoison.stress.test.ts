/** A machine that is many peers claims tags, with a manifest of its own. */
import { assert, describe, it } from "@effect/vitest"
import { testImage } from "@spegel-ts/testing/content/TestImage"
import { Effect } from "effect"
import * as AttackedCluster from "./AttackedCluster.ts"
import { note } from "./Findings.ts"
import * as RogueMember from "./RogueMember.ts"
import * as RogueServer from "./RogueServer.ts"

const honest = testImage("honest")
/** Its digest is the smaller one: an attacker can have that for the price of some hashing. */
const poison = Array.from({ length: 64 }, (_, seed) => testImage(`poison ${seed}`))
  .toSorted((one, other) => one.descriptor.digest < other.descriptor.digest ? -1 : 1)[0] ?? honest

const pulls = 40
const repositoryOf = (count: number) => `library/held-by-${count}`
const nameOf = (count: number) => `docker.io/${repositoryOf(count)}:latest`

interface Counts {
  readonly poisoned: number
  readonly right: number
  readonly leftToUpstream: number
}

const pullOften = Effect.fnUntraced(function*(victim: AttackedCluster.AttackedNode, count: number) {
  const path = AttackedCluster.manifestPath(repositoryOf(count), "latest")
  const digests: Array<string> = []
  for (let pull = 0; pull < pulls; pull++) {
    const { body, headers, status } = yield* victim.pull(path, { method: pull % 2 === 0 ? "HEAD" : "GET" })
    const digest = status === 200 ? headers.get("docker-content-digest") ?? "" : ""
    if (status === 200 && pull % 2 === 1) {
      assert.isTrue(body.equals(digest === poison.descriptor.digest ? poison.manifest : honest.manifest))
    }
    digests.push(digest)
    yield* Effect.sleep("10 millis")
  }
  const countOf = (wanted: string) => digests.filter((digest) => digest === wanted).length
  return {
    poisoned: countOf(poison.descriptor.digest),
    right: countOf(honest.descriptor.digest),
    leftToUpstream: countOf("")
  } satisfies Counts
})

const attack = Effect.fnUntraced(function*(
  network: string,
  { hasKey, holders, peerAuth }: {
    readonly peerAuth: "require" | "off"
    readonly hasKey: boolean
    /** A tag for each number of honest holders; the victim holds none of them. */
    readonly holders: ReadonlyArray<number>
  }
) {
  const cluster = yield* AttackedCluster.make({ network, peerAuth })
  const victim = yield* cluster.start(2)
  const others = yield* Effect.forEach(
    Array.from({ length: Math.max(...holders) }, (_, index) => index + 1),
    (index) => {
      const held = holders.filter((count) => count >= index).map((count) => [nameOf(count), honest] as const)
      return cluster.start(2 + index, { images: Object.fromEntries(held) })
    },
    { concurrency: 3 }
  )
  yield* AttackedCluster.untilTogether([victim, ...others])
  const ring = hasKey ? cluster.ring : undefined
  const address = `${network}.66`
  const server = yield* RogueServer.start({ address, ring }, RogueServer.givesImage(poison))
  const rogues = yield* RogueMember.joinAsMany({
    address,
    servicePort: server.port,
    bootstrap: cluster.bootstrap,
    ring
  })
  yield* Effect.forEach(rogues, (rogue) => Effect.forkChild(rogue.advertise(...holders.map(nameOf))), { discard: true })
  const isMember = hasKey || peerAuth === "off"
  yield* AttackedCluster.until(
    isMember
      ? Effect.map(victim.members, (members) => members.length === others.length + rogues.length)
      : Effect.map(
        victim.metric("spegel_peer_auth_failures_total", { reason: "unproved" }),
        (refused) => refused >= rogues.length
      ),
    isMember ? "all rogues are members" : "all rogues were refused"
  )
  // The records arrive within half a second.
  yield* Effect.sleep("1 second")
  const counts = yield* Effect.forEach(holders, (count) => pullOften(victim, count))
  yield* Effect.forEach(
    counts,
    ({ leftToUpstream, poisoned, right }, index) =>
      note(
        `${rogues.length} identities claim a tag; honest holders: ${holders[index]}`,
        peerAuth === "off" ? "off" : hasKey ? "has the key" : "has no key",
        `of ${pulls}: ${poisoned} poisoned, ${right} right, ${leftToUpstream} left to upstream`
      ),
    { discard: true }
  )
  return { counts, server, victim, others }
})

describe("a machine that is 16 peers and claims tags", { timeout: 120_000 }, () => {
  it.live("changes none if it does not have the key", () =>
    Effect.gen(function*() {
      const { counts, others, server, victim } = yield* attack("127.81.1", {
        peerAuth: "require",
        hasKey: false,
        holders: [0, 1, 3]
      })
      assert.deepStrictEqual(counts.map(({ poisoned }) => poisoned), [0, 0, 0])
      // Nobody asks it, and the honest holders are found as if it were not there.
      assert.deepStrictEqual(server.asked, [])
      assert.deepStrictEqual(counts[0], { poisoned: 0, right: 0, leftToUpstream: pulls })
      for (const { right } of counts.slice(1)) assert.isAtLeast(right, pulls / 2)
      const members = (yield* victim.members).map(({ id }) => id)
      assert.sameMembers(members, others.map(({ id }) => id))
    }))

  it.live("changes none that several honest nodes hold if it has the key", () =>
    Effect.gen(function*() {
      const { counts, server } = yield* attack("127.81.2", {
        peerAuth: "require",
        hasKey: true,
        holders: [0, 1, 2, 3]
      })
      assert.isNotEmpty(server.asked)
      assert.deepStrictEqual(counts.slice(2).map(({ poisoned }) => poisoned), [0, 0])
      // One word against one: upstream decides, unless one of the two comes too late.
      assert.isAtLeast(counts[1]?.leftToUpstream ?? 0, pulls / 2)
      // Three against one: the tag is still answered.
      assert.isAtLeast(counts[3]?.right ?? 0, pulls / 2)
      // The first node that has a new tag is believed: this is what the key is worth.
      assert.isAbove(counts[0]?.poisoned ?? 0, 0)
    }))

  it.live("changes those that nobody else holds where nobody proves anything", () =>
    Effect.gen(function*() {
      const { counts, server } = yield* attack("127.81.3", { peerAuth: "off", hasKey: false, holders: [0] })
      assert.isNotEmpty(server.asked)
      assert.isAbove(counts[0]?.poisoned ?? 0, 0)
    }))
})
