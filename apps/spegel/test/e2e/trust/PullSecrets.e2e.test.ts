/**
 * Who sees the pull secret of a pod: its registry, and no mirror. Real daemons pull private images through a mirror, with everything
 * that they say to it recorded.
 */
import { assert, describe, it } from "@effect/vitest"
import * as OciLayoutWriter from "@spegel-ts/content/OciLayoutWriter"
import * as Reference from "@spegel-ts/oci/Reference"
import * as ContainerdDaemon from "@spegel-ts/testing/containerd/ContainerdDaemon"
import * as ContainerdPackages from "@spegel-ts/testing/containerd/ContainerdPackages"
import * as CriClient from "@spegel-ts/testing/containerd/CriClient"
import * as GuardedRegistry from "@spegel-ts/testing/containerd/GuardedRegistry"
import * as RandomImage from "@spegel-ts/testing/content/RandomImage"
import * as RecordingProxy from "@spegel-ts/testing/network/RecordingProxy"
import * as Lookup from "@spegel-ts/testing/node/Lookup"
import * as MirrorPorts from "@spegel-ts/testing/node/MirrorPorts"
import * as Node from "@spegel-ts/testing/node/Node"
import * as SpegelProcess from "@spegel-ts/testing/node/SpegelProcess"
import * as Upstream from "@spegel-ts/testing/node/Upstream"
import { temporary } from "@spegel-ts/testing/TemporaryDirectory"
import { Effect, Result } from "effect"
import { readFileSync } from "node:fs"
import * as ClusterKeys from "./ClusterKeys.ts"

const missing = ContainerdDaemon.missingPrerequisite("docker-registry")

const secret: CriClient.PullSecret = { username: "pod-user", password: "pod-s3cret/+" }
const repository = "team/app"

/** The token that is in hosts.toml; `stale`: its key has been dropped. */
const tokens = ["right", "stale", "none"] as const
const clients = ["CRI", "ctr"] as const
const tagResolutions = ["mirror", "upstream-first"] as const

interface Case {
  readonly token: typeof tokens[number]
  readonly tagResolution: typeof tagResolutions[number]
  readonly scheme: GuardedRegistry.Scheme
  readonly client: typeof clients[number]
}

const cases: ReadonlyArray<Case> = tokens.flatMap((token) =>
  tagResolutions.flatMap((tagResolution) =>
    GuardedRegistry.schemes.flatMap((scheme) => clients.map((client) => ({ token, tagResolution, scheme, client })))
  )
)

const tagOf = ({ client, scheme, tagResolution, token }: Case) =>
  `${token}-${tagResolution}-${scheme}-${client}`.toLowerCase()

/** Everything that must not come to a mirror, in the forms in which it may be written. */
const formsOf = ({ password, username }: CriClient.PullSecret, upstreamTokens: ReadonlyArray<string>) =>
  [username, password, ...upstreamTokens].flatMap((text) => [text, encodeURIComponent(text)]).concat(
    // Whatever stands before them in base64, as in `user:password`.
    [`${username}:${password}`, `:${password}`, ...upstreamTokens].map((text) => Buffer.from(text).toString("base64"))
  )

/** All values of a header in what was said in one direction. */
const valuesOf = (name: string, text: string) =>
  [...text.matchAll(new RegExp(`^${name}: *([^\r\n]*)\r$`, "gim"))].map(([, value = ""]) => value)

/** A node of each kind of registry's images, one for each case, and a node that holds none. */
const start = Effect.fnUntraced(function*(version: ContainerdPackages.Version) {
  const upstream = yield* Upstream.start
  const guards = yield* Effect.forEach(
    GuardedRegistry.schemes,
    (scheme) => GuardedRegistry.start(scheme, secret, upstream.host)
  )
  const guardOf = (scheme: GuardedRegistry.Scheme) =>
    guards.find((guard) => guard.scheme === scheme) ?? assert.fail(scheme)
  const root = yield* temporary
  const writer = yield* OciLayoutWriter.make({ root })
  const images = new Map<Case, RandomImage.RandomImage>()
  for (const [seed, each] of cases.entries()) {
    const reference = Result.getOrThrow(Reference.parse(`${guardOf(each.scheme).host}/${repository}:${tagOf(each)}`))
    const image = yield* RandomImage.write({ writer, reference, layerSizes: [20_000, 30_000], seed })
    yield* upstream.publish(writer, image, tagOf(each))
    images.set(each, image)
  }

  const keys = { right: yield* ClusterKeys.make, stale: yield* ClusterKeys.make }
  const ports = yield* MirrorPorts.free
  const node = yield* Node.start(1, ports, guards[0]?.host ?? "", {
    programs: yield* ContainerdPackages.fetch(version),
    registry: [keys.right.flag, "--node-name=here", "--mirror-resolve-timeout=5s", "--log-level=debug"]
  })
  const holder = `http://127.0.0.3:${ports.registry}`
  yield* SpegelProcess.start([
    "registry",
    `--store=oci-layout:${root}`,
    `--data-dir=${yield* temporary}`,
    ...MirrorPorts.flags("127.0.0.3", ports),
    "--bootstrap-kind=static",
    `--static-bootstrap-peers=127.0.0.2:${ports.router}`,
    keys.right.flag,
    "--node-name=there"
  ])
  yield* SpegelProcess.untilReady(holder)
  const proxy = yield* RecordingProxy.start(node.url)

  /** Makes containerd ask the proxy, with this token. */
  const configure = Effect.fnUntraced(function*(token: Case["token"], tagResolution: Case["tagResolution"]) {
    const { code, stderr } = yield* SpegelProcess.run([
      "configuration",
      `--containerd-registry-config-path=${node.certs}`,
      `--mirrored-registries=${guards.map(({ host }) => `http://${host}`).join(",")}`,
      `--mirror-targets=${proxy.url}`,
      `--tag-resolution=${tagResolution}`,
      ...(token === "none" ? [] : [keys[token].flag, "--node-name=here"])
    ])
    assert.strictEqual(code, 0, stderr)
  })
  /** Waits until the node's mirror finds all of an image at the holder. */
  const untilFound = (image: RandomImage.RandomImage) =>
    Lookup.untilFound(node.url, image.reference, Lookup.pathsOf(image), {
      authorization: `Bearer ${keys.right.tokenOf("here")}`
    })
  const pull = ({ client, ...rest }: Case): Node.Pull => {
    const name = `${guardOf(rest.scheme).host}/${repository}:${tagOf({ client, ...rest })}`
    return client === "CRI"
      ? CriClient.pullImage(node.containerd.socket, name, secret)
      : node.containerd.ctr(
        "images",
        "pull",
        "--hosts-dir",
        node.certs,
        "--user",
        `${secret.username}:${secret.password}`,
        name
      )
  }
  return { node, proxy, keys, guards, guardOf, images, configure, untilFound, pull }
})

type Started = Effect.Success<ReturnType<typeof start>>

/** Pulls, and looks at what containerd has said to whom. */
const check = Effect.fnUntraced(function*(started: Started, each: Case) {
  const { guardOf, guards, images, keys, proxy, pull, untilFound } = started
  const guard = guardOf(each.scheme)
  const image = images.get(each) ?? assert.fail(tagOf(each))
  const where = tagOf(each)
  if (each.token === "right") yield* untilFound(image)
  proxy.clear()
  for (const { clear } of guards) clear()
  yield* Effect.mapError(pull(each), ({ message }) => `${where}: ${message}`)

  const connections = proxy.connections()
  const sent = connections.map((connection) => connection.sent).join("\n")
  const answered = connections.map((connection) => connection.answered).join("\n")
  const requests = [...sent.matchAll(/^(?:GET|HEAD) \S+/gm)]
  const allTokens = guards.flatMap(({ tokens }) => tokens())
  for (const form of formsOf(secret, allTokens)) assert.notInclude(sent, form, where)
  // Each request has the token of hosts.toml.
  const token = each.token === "none" ? undefined : keys[each.token].tokenOf("here")
  const expected = token === undefined ? [] : requests.map(() => `Bearer ${token}`)
  assert.deepStrictEqual(valuesOf("authorization", sent), expected, where)
  assert.deepStrictEqual(valuesOf("www-authenticate", answered), [], where)

  // Two layers, the configuration and the manifest, and its tag.
  const most = each.tagResolution === "mirror" ? 5 : 4
  // A body may end without an end of line.
  const statuses = [...answered.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map(([, status = ""]) => status)
  assert.isAtLeast(requests.length, most, where)
  assert.strictEqual(statuses.length, requests.length, where)
  assert.deepStrictEqual([...new Set(statuses)], [each.token === "right" ? "200" : "404"], where)
  if (each.token !== "right") assert.include(answered, "spegel-ts: this mirror serves only nodes of its cluster", where)

  const { authorizations, challenges, served } = guard.state
  const bodies = served.filter((request) => request.startsWith("GET"))
  if (each.token === "right") assert.deepStrictEqual(bodies, [], where)
  else assert.strictEqual(bodies.length, 4, where)
  // The registry, and it alone, was given the secret; no registry was given a node's token.
  const isAsked = each.token !== "right" || each.tagResolution === "upstream-first"
  assert.strictEqual(challenges > 0, isAsked, where)
  assert.strictEqual(authorizations.size > 0, isAsked, where)
  for (const key of [keys.right, keys.stale]) {
    assert.notInclude([...authorizations].join("\n"), key.tokenOf("here"), where)
  }
})

describe.skipIf(missing !== undefined).each(ContainerdPackages.versions)(
  `the pull secret of a pod, containerd %s${missing === undefined ? "" : ` (skipped: ${missing})`}`,
  (version) => {
    it.live("comes to its registry and to no mirror, whatever token the node has", () =>
      Effect.gen(function*() {
        const started = yield* start(version)
        for (const token of tokens) {
          for (const tagResolution of tagResolutions) {
            yield* started.configure(token, tagResolution)
            for (const each of cases) {
              if (each.token === token && each.tagResolution === tagResolution) yield* check(started, each)
            }
          }
        }
        // Nor into the log of the mirror, which tells everything here.
        const log = started.node.mirror.output.stderr
        assert.include(log, "\"DEBUG\"")
        const upstreamTokens = started.guards.flatMap(({ tokens }) => tokens())
        assert.isNotEmpty(upstreamTokens)
        for (const form of formsOf(secret, upstreamTokens)) assert.notInclude(log, form)
        for (const key of [started.keys.right, started.keys.stale]) {
          assert.notInclude(log, key.tokenOf("here").split(".").at(-1) ?? "")
        }
        assert.notInclude(log, readFileSync(started.keys.right.flag.split("=")[1] ?? "", "utf8").trim())
      }))
  }
)
