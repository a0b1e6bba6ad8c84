/** What a rogue that claims a tag comes to at a real containerd, whose upstream registry is away. */
import { assert, describe, it } from "@effect/vitest"
import * as Digest from "@spegel-ts/oci/Digest"
import * as ContainerdDaemon from "@spegel-ts/testing/containerd/ContainerdDaemon"
import { testImage } from "@spegel-ts/testing/content/TestImage"
import * as SpegelProcess from "@spegel-ts/testing/node/SpegelProcess"
import { temporary } from "@spegel-ts/testing/TemporaryDirectory"
import { Effect } from "effect"
import * as AttackedCluster from "./AttackedCluster.ts"
import { note } from "./Findings.ts"
import * as RogueMember from "./RogueMember.ts"
import * as RogueServer from "./RogueServer.ts"

const honest = testImage("honest")
const poison = testImage("poison")

const attack = Effect.fnUntraced(function*(network: string, peerAuth: "require" | "off") {
  const upstream = `${network}.99:9`
  const [held, unknown] = ["held", "unknown"].map((name) => `${upstream}/library/${name}:latest`)
  const cluster = yield* AttackedCluster.make({ network, peerAuth })
  const victim = yield* cluster.start(2)
  const holder = yield* cluster.start(3, { images: { [held ?? ""]: honest } })
  yield* AttackedCluster.untilTogether([victim, holder])

  const certs = yield* temporary
  const configured = yield* SpegelProcess.run([
    "configuration",
    `--containerd-registry-config-path=${certs}`,
    `--mirrored-registries=http://${upstream}`,
    `--mirror-targets=${victim.url}`,
    ...(peerAuth === "off" ? [] : [`--cluster-key-file=${cluster.keyFile}`, "--node-name=node-2"])
  ])
  assert.strictEqual(configured.code, 0, configured.stderr)
  const containerd = yield* ContainerdDaemon.start()

  const address = `${network}.66`
  const server = yield* RogueServer.start({ address, ring: undefined }, RogueServer.givesImage(poison))
  const rogues = yield* RogueMember.joinAsMany({
    address,
    servicePort: server.port,
    bootstrap: cluster.bootstrap,
    ring: undefined
  })
  const claims = [held ?? "", unknown ?? "", ...[poison.manifest, poison.config, poison.layer].map(Digest.ofBytes)]
  yield* Effect.forEach(rogues, (rogue) => Effect.forkChild(rogue.advertise(...claims)), { discard: true })
  yield* AttackedCluster.until(
    peerAuth === "off"
      ? Effect.map(victim.members, ({ length }) => length === 1 + rogues.length)
      : Effect.map(victim.metric("spegel_peer_auth_failures_total"), (refused) => refused >= rogues.length),
    "all rogues have tried to join"
  )
  yield* Effect.sleep("1 second")

  /** The digest that containerd has for an image after a pull; undefined if there was none. */
  const pull = Effect.fnUntraced(function*(image = "") {
    yield* Effect.ignore(containerd.ctr("content", "fetch", "--all-platforms", "--hosts-dir", certs, image))
    const images = yield* Effect.orDie(containerd.ctr("images", "list"))
    return images.split("\n").find((line) => line.startsWith(image))?.split(/ +/)[2]
  })
  return { held: yield* pull(held), unknown: yield* pull(unknown), server }
})

const missing = ContainerdDaemon.missingPrerequisite()
const noted = missing === undefined ? "" : ` (skipped: ${missing})`

describe.skipIf(missing !== undefined)(`a rogue beside a real containerd${noted}`, { timeout: 120_000 }, () => {
  it.live("changes no image without the key", () =>
    Effect.gen(function*() {
      const { held, server, unknown } = yield* attack("127.81.19", "require")
      assert.strictEqual(held, honest.descriptor.digest)
      assert.isUndefined(unknown)
      assert.deepStrictEqual(server.asked, [])
      yield* note(
        "16 identities claim tags that containerd pulls",
        "has no key",
        "the honest image, and none for the other tag"
      )
    }))

  it.live("changes one that nobody holds where nobody proves anything", () =>
    Effect.gen(function*() {
      const { server, unknown } = yield* attack("127.81.20", "off")
      assert.strictEqual(unknown, poison.descriptor.digest)
      assert.isNotEmpty(server.asked)
    }))
})
