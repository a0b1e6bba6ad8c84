/** A rogue wants honest peers to be blamed: it names their ids with its own address, and warns of what they hold. */
import { assert, describe, it } from "@effect/vitest"
import * as Digest from "@spegel-ts/oci/Digest"
import * as RequestProof from "@spegel-ts/registry/internal/auth/RequestProof"
import * as RandomImage from "@spegel-ts/testing/content/RandomImage"
import { temporary } from "@spegel-ts/testing/TemporaryDirectory"
import { Effect } from "effect"
import { base58btc } from "multiformats/bases/base58"
import * as AttackedCluster from "./AttackedCluster.ts"
import { note } from "./Findings.ts"
import * as RawRogue from "./RawRogue.ts"
import * as RogueServer from "./RogueServer.ts"

const repository = "library/app"
const size = 200_000
/** What the honest node holds, and what only a node holds that is away: others are asked for that. */
const held = Array.from({ length: 6 }, (_, index) => RandomImage.noise(index, size))
const ofAbsent = Array.from({ length: 6 }, (_, index) => RandomImage.noise(100 + index, size))
/** The rogue says of these that the honest node has them, and of the others that the node has them that is away. */
const namedOfHonest = ofAbsent.slice(0, 3)

const keyTextOf = (bytes: Uint8Array) => Buffer.from(RawRogue.dhtKey(Digest.ofBytes(bytes))).toString("hex")

const attack = Effect.fnUntraced(function*(
  network: string,
  { hasKey, peerAuth }: { readonly peerAuth: "require" | "off"; readonly hasKey: boolean }
) {
  const cluster = yield* AttackedCluster.make({ network, peerAuth })
  const ring = hasKey ? cluster.ring : undefined
  const victim = yield* cluster.start(2)
  const honest = yield* cluster.start(3, { blobs: held })
  const directory = yield* temporary
  // It comes, and goes without a goodbye: only its id is known then.
  const absent = yield* cluster.start(4, { blobs: ofAbsent, directory })
  yield* AttackedCluster.untilTogether([victim, honest, absent])
  absent.child.kill("SIGKILL")
  yield* AttackedCluster.until(Effect.map(victim.members, ({ length }) => length === 1), "the absent node is forgotten")

  const address = `${network}.66`
  // Where a peer is asked whose port is not known: where the nodes of a cluster all listen.
  const port = cluster.ports.registry
  const server = yield* RogueServer.start({ address, port, ring }, RogueServer.givesWrongBytes(size))
  const ids = new Map(
    ofAbsent.map((bytes) => [keyTextOf(bytes), namedOfHonest.includes(bytes) ? honest.id : absent.id])
  )
  const rogue = yield* RawRogue.start({
    address,
    servicePort: server.port,
    ring,
    providersOf: (key) => {
      const id = ids.get(Buffer.from(key).toString("hex"))
      return id === undefined ? [] : [RawRogue.wirePeer(base58btc.baseDecode(id), address, server.port)]
    }
  })
  const { connection, isProved } = yield* Effect.promise(() => rogue.connect(cluster.bootstrap))
  assert.strictEqual(isProved, hasKey)
  const isMember = hasKey || peerAuth === "off"
  yield* Effect.promise(() => rogue.hello(connection).catch(() => undefined))
  yield* AttackedCluster.until(
    isMember
      ? Effect.map(victim.members, (members) => members.some(({ id }) => id === rogue.id))
      : Effect.map(victim.metric("spegel_peer_auth_failures_total"), (refused) => refused > 0),
    isMember ? "the rogue is a member" : "the rogue was refused"
  )
  // A member that knows no provider is believed two seconds after it came.
  yield* Effect.sleep("3 seconds")
  const pull = (bytes: Uint8Array) =>
    Effect.map(
      victim.pull(AttackedCluster.blobPath(repository, bytes)),
      ({ body, status }) => status === 200 ? body.equals(bytes) ? "right" : "wrong" : `${status}`
    )
  const framing = yield* Effect.forEach(ofAbsent, pull)
  return { absent, address, cluster, directory, framing, honest, pull, ring, rogue, server, victim }
})

/** Says, in the name of a peer, that bytes of a node were wrong. */
const warn = Effect.fnUntraced(function*(
  { honest, ring }: Effect.Success<ReturnType<typeof attack>>,
  bytes: Uint8Array
) {
  const target = AttackedCluster.blobPath(repository, bytes)
  const proof = ring === undefined ? {} : {
    [RequestProof.proofHeader]: RequestProof.print(
      ring.current("registry"),
      { receiver: honest.id, method: "HEAD", target, range: undefined, said: ["x-spegel-suspect", "true"] },
      Date.now(),
      RequestProof.newNonce()
    )
  }
  const headers = { "x-spegel-mirrored": "true", "x-spegel-suspect": "true", ...proof }
  return (yield* AttackedCluster.ask(`${honest.url}${target}`, { method: "HEAD", headers })).status
})

/** Nobody honest is held for a liar, by the log and by what is pulled. */
const assertNobodyBlamed = Effect.fnUntraced(function*(attacked: Effect.Success<ReturnType<typeof attack>>) {
  const { absent, cluster, directory, honest, pull, victim } = attacked
  const warnings = yield* Effect.forEach(held, (bytes) => warn(attacked, bytes))
  assert.strictEqual(yield* honest.metric("spegel_content_damaged_total"), 0)
  const fromHonest = yield* Effect.forEach(held, pull)
  assert.deepStrictEqual(fromHonest, held.map(() => "right"))
  // The node that was away comes back, with its identity: what the rogue sent in its name is not held against it.
  const back = yield* cluster.start(4, { directory })
  assert.strictEqual(back.id, absent.id)
  yield* AttackedCluster.untilTogether([victim, honest, back])
  const late = RandomImage.noise(300, size)
  yield* AttackedCluster.holdBlob(back.writer, late)
  yield* AttackedCluster.until(
    Effect.map(pull(late), (outcome) => outcome === "right"),
    "the node that came back is used"
  )
  const again = yield* Effect.forEach(ofAbsent, pull)
  const blamed = victim.warnings().filter((line) =>
    /wrong bytes/.test(line) && (line.includes(honest.address) || line.includes(`${absent.address}:`))
  )
  assert.deepStrictEqual(blamed, [])
  return { again, warnings }
})

describe("a rogue that wants honest peers to be blamed", { timeout: 120_000 }, () => {
  it.live("is not heard without the key", () =>
    Effect.gen(function*() {
      const attacked = yield* attack("127.81.8", { peerAuth: "require", hasKey: false })
      const { framing, rogue, server, victim } = attacked
      assert.strictEqual(rogue.asked.lookups, 0)
      assert.deepStrictEqual(server.asked, [])
      assert.deepStrictEqual(new Set(framing), new Set(["404"]))
      const { again, warnings } = yield* assertNobodyBlamed(attacked)
      assert.deepStrictEqual(new Set(warnings), new Set([404]))
      assert.deepStrictEqual(again, ofAbsent.map(() => "right"))
      assert.strictEqual(yield* victim.metric("spegel_mirror_corruptions_total"), 0)
      yield* note(
        "names honest ids at its own address, warns of honest blobs",
        "has no key",
        "never asked, nobody blamed"
      )
    }))

  it.live("is blamed itself, at its address, if it has the key", () =>
    Effect.gen(function*() {
      const attacked = yield* attack("127.81.9", { peerAuth: "require", hasKey: true })
      const { framing, rogue, server, victim } = attacked
      assert.isAbove(rogue.asked.lookups, 0)
      // It is asked in the name of the node that is away, and never in that of a member.
      assert.isNotEmpty(server.asked)
      const asked = new Set(server.asked.map(({ reference }) => reference))
      for (const bytes of namedOfHonest) assert.isFalse(asked.has(Digest.ofBytes(bytes)))
      assert.notInclude(framing, "wrong")
      const corruptions = yield* victim.metric("spegel_mirror_corruptions_total")
      assert.isAbove(corruptions, 0)
      const { again, warnings } = yield* assertNobodyBlamed(attacked)
      // The honest node has heard the warnings, and has looked.
      assert.deepStrictEqual(new Set(warnings), new Set([200]))
      assert.deepStrictEqual(again, ofAbsent.map(() => "right"))
      yield* note(
        "names honest ids at its own address, warns of honest blobs",
        "has the key",
        `${corruptions} wrong bodies, all held against its address; members' ids never; no honest blob withdrawn`
      )
    }))

  it.live("is asked where nobody proves anything", () =>
    Effect.gen(function*() {
      const { framing, rogue, server } = yield* attack("127.81.10", { peerAuth: "off", hasKey: false })
      assert.isAbove(rogue.asked.lookups, 0)
      assert.isNotEmpty(server.asked)
      assert.notInclude(framing, "wrong")
    }))
})
