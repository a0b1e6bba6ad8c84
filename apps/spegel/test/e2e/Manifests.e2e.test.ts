/**
 * Whatever a registry's manifest looks like, a pull through the mirror comes to what it comes to without it: from
 * upstream, again while the image is here (as `imagePullPolicy: Always` does), and on another node.
 */
import { assert, describe, it } from "@effect/vitest"
import { ContainerdClient, registryImages } from "@spegel-ts/containerd/ContainerdClient"
import * as MediaType from "@spegel-ts/oci/MediaType"
import * as ContainerdDaemon from "@spegel-ts/testing/containerd/ContainerdDaemon"
import * as ContainerdPackages from "@spegel-ts/testing/containerd/ContainerdPackages"
import * as MirrorPorts from "@spegel-ts/testing/node/MirrorPorts"
import * as Node from "@spegel-ts/testing/node/Node"
import { Effect, Schedule } from "effect"
import { mkdir, writeFile } from "node:fs/promises"
import { join } from "node:path"
import * as ManifestRegistry from "./manifests/ManifestRegistry.ts"
import { type Row, rows } from "./manifests/Spellings.ts"

/** The outcome of a pull. */
interface Outcome {
  /** Why there was no image; empty where there is one. */
  readonly failure: string
  /** The type in each image's record afterwards; empty where there is no record. */
  readonly types: ReadonlyArray<string>
}

/** Types in image records, by the records' names. */
const recordTypes = (node: Node.Node) =>
  Effect.gen(function*() {
    const client = yield* ContainerdClient
    return new Map((yield* client.images([registryImages])).map(({ mediaType, name }) => [name, mediaType]))
  }).pipe(Effect.provide(ContainerdClient.layer({ socket: node.containerd.socket, namespace: "k8s.io" })))

/** The type that a node's mirror answers with, once it answers with an expected one. */
const mirroredType = (
  node: Node.Node,
  image: { readonly registry: ManifestRegistry.ManifestRegistry; readonly row: Row; readonly reference: string },
  isExpected: (type: string) => boolean
) => {
  const url = `${node.url}/v2/${image.row.name}/manifests/${image.reference}?ns=${image.registry.host}`
  return Effect.tryPromise(() => fetch(url, { method: "HEAD" })).pipe(
    Effect.map(({ headers, ok }) => ok ? headers.get("content-type") ?? "" : ""),
    Effect.filterOrFail(isExpected, (type) => `${url} is answered as "${type}"`),
    Effect.retry({ schedule: Schedule.spaced("50 millis"), times: 400 })
  )
}

/** Pulls as the kubelet does. */
const pull = (node: Node.Node, registry: ManifestRegistry.ManifestRegistry, row: Row) =>
  Effect.forEach(
    registry.referencesOf(row),
    Effect.fnUntraced(function*(reference, index) {
      // The mirror learns of an image by an event, a moment after it was pulled.
      if (index > 0) {
        yield* mirroredType(node, { registry, row, reference }, (type) => type === MediaType.dockerManifest)
      }
      yield* node.pullByCri(registry.nameOf(row, reference))
    })
  )

/** Pulls all rows, a few at a time. */
const pullAll = Effect.fnUntraced(function*(node: Node.Node, registry: ManifestRegistry.ManifestRegistry) {
  registry.requests.length = 0
  const failures = yield* Effect.forEach(
    rows,
    (row) => Effect.match(pull(node, registry, row), { onSuccess: () => "", onFailure: String }),
    { concurrency: 8 }
  )
  const types = yield* recordTypes(node)
  const outcomes = new Map(rows.map((row, index): readonly [Row, Outcome] => {
    const names = registry.referencesOf(row).map((reference) => registry.nameOf(row, reference))
    return [row, { failure: failures[index] ?? "", types: names.map((name) => types.get(name) ?? "") }]
  }))
  return { outcomes, requests: [...registry.requests] }
})

type Pulls = Effect.Success<ReturnType<typeof pullAll>>

/** Rows for which an outcome is worse than without the mirror, and how. */
const worse = (title: string, { outcomes }: Pulls, alone: Pulls): ReadonlyArray<string> =>
  rows.flatMap((row) => {
    const [outcome, expected] = [outcomes.get(row), alone.outcomes.get(row)]
    if (outcome === undefined || expected === undefined) return `${row.name} ${title}: not tried`
    if (expected.failure === "" && outcome.failure !== "") return `${row.name} ${title}: ${outcome.failure}`
    return outcome.types.flatMap((type, index) => {
      const without = expected.types[index] ?? ""
      // A pull may do better, and then there is a record.
      const isAsGood = type === without ||
        (expected.failure !== "" && (MediaType.isImage(type) || MediaType.isIndex(type)))
      return isAsGood ? [] : `${row.name} ${title}: recorded as "${type}", not "${without}"`
    })
  })

/** Requests at the upstream registry for manifests of these rows. */
const askedUpstream = ({ requests }: Pulls, of: ReadonlyArray<Row>) => {
  const names = new Set(of.map(({ name }) => name))
  return requests.filter((request) => names.has(request.split(" ")[1] ?? ""))
}

/** What the log of a node's mirror says of the repositories of these requests. */
const logOf = (node: Node.Node, requests: ReadonlyArray<string>) => {
  const names = requests.map((request) => request.split(" ")[1] ?? "")
  return node.mirror.output.stderr.split("\n").filter((line) => names.some((name) => line.includes(name))).join("\n")
}

const missing = ContainerdDaemon.missingPrerequisite()

describe.skipIf(missing !== undefined)(
  `manifests in all spellings${missing === undefined ? "" : ` (skipped: ${missing})`}`,
  () => {
    for (const version of ContainerdPackages.versions) {
      it.live(`containerd ${version} pulls ${rows.length} of them as without the mirror`, () =>
        Effect.gen(function*() {
          const programs = yield* ContainerdPackages.fetch(version)
          const plain = yield* ManifestRegistry.start(rows)
          const mirrored = yield* ManifestRegistry.start(rows)
          const ports = yield* MirrorPorts.free
          const options = { programs, registry: ["--mirror-resolve-timeout=2s"] }
          const first = yield* Node.start(1, ports, mirrored.host, options)
          const second = yield* Node.start(2, ports, mirrored.host, options)
          yield* Effect.promise(async () => {
            const directory = join(first.certs, plain.host)
            await mkdir(directory)
            await writeFile(join(directory, "hosts.toml"), `[host."http://${plain.host}"]\n`)
          })

          const alone = yield* pullAll(first, plain)
          const through = yield* pullAll(first, mirrored)
          const again = yield* pullAll(first, mirrored)
          const accepted = rows.filter((row) => alone.outcomes.get(row)?.failure === "")
          for (const row of accepted) {
            for (const [index, reference] of mirrored.referencesOf(row).entries()) {
              const type = yield* mirroredType(second, { registry: mirrored, row, reference }, (type) => type !== "")
              assert.strictEqual(type, alone.outcomes.get(row)?.types[index], `${row.name} ${reference}`)
            }
          }
          const elsewhere = yield* pullAll(second, mirrored)

          assert.deepStrictEqual([
            ...worse("through the mirror", through, alone),
            ...worse("again", again, alone),
            ...worse("on another node", elsewhere, alone)
          ], [])
          // Otherwise the mirrors were not asked, or had no answer.
          assert.isAtLeast(accepted.length, 60)
          assert.isNotEmpty(askedUpstream(through, accepted))
          for (const [node, pulls] of [[first, again], [second, elsewhere]] as const) {
            const asked = askedUpstream(pulls, accepted)
            assert.deepStrictEqual(asked, [], logOf(node, asked))
          }
          // The manifests of an index are known by the index before they have records of their own.
          const children = rows.filter(({ by }) => by === "child")
          assert.isNotEmpty(children)
          assert.deepStrictEqual(askedUpstream(through, children).filter((request) => /^HEAD .*:/.test(request)), [])
        }), 280_000)
    }
  }
)
