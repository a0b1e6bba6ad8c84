/** Mirrors that are attacked: processes of the bundle on loopback addresses of one test, all of them on the same ports. */
import * as ClientToken from "@spegel-ts/cluster-key/ClientToken"
import { generate } from "@spegel-ts/cluster-key/KeyRing"
import * as OciLayoutWriter from "@spegel-ts/content/OciLayoutWriter"
import { Descriptor } from "@spegel-ts/oci/Descriptor"
import * as Digest from "@spegel-ts/oci/Digest"
import * as Reference from "@spegel-ts/oci/Reference"
import { ringOf } from "@spegel-ts/testing/ClusterKeys"
import type { testImage } from "@spegel-ts/testing/content/TestImage"
import * as MirrorPorts from "@spegel-ts/testing/node/MirrorPorts"
import * as SpegelProcess from "@spegel-ts/testing/node/SpegelProcess"
import { temporary } from "@spegel-ts/testing/TemporaryDirectory"
import { Effect, Result, Schedule } from "effect"
import { readFile, writeFile } from "node:fs/promises"
import { join } from "node:path"

export type TestImage = ReturnType<typeof testImage>

export interface ClusterOptions {
  /** The first three numbers of its addresses, such as `127.81.1`. Its first node is `.2`. */
  readonly network: string
  /** `off` is the control: there the same attack succeeds. */
  readonly peerAuth: "require" | "off"
}

export interface NodeOptions {
  /** The images that it holds when it starts, by their names. */
  readonly images?: Readonly<Record<string, TestImage>>
  /** Blobs that it holds besides. */
  readonly blobs?: ReadonlyArray<Uint8Array>
  /** Another cluster key than the others have. */
  readonly keyFile?: string
  readonly flags?: ReadonlyArray<string>
  readonly environment?: Readonly<Record<string, string>>
  /** Where its images and its identity are. Default: a directory of its own. */
  readonly directory?: string
}

/** What a mirror answered. */
export interface Answer {
  readonly status: number
  readonly headers: Headers
  readonly body: Buffer
}

/** Of `/debug/peers`; the first is the node itself. */
export interface KnownPeer {
  readonly id: string
  readonly addresses: ReadonlyArray<string>
  readonly lastHeardMillis?: number
  readonly proved?: boolean
}

/** Writes an image into a layout; a client that stores it does the same. */
export const hold = Effect.fnUntraced(
  function*(writer: OciLayoutWriter.OciLayoutWriter, name: string, image: TestImage) {
    yield* Effect.forEach([image.layer, image.config, image.manifest], (bytes) => holdBlob(writer, bytes))
    const reference = Result.getOrThrow(Reference.parse(name))
    yield* writer.tag(reference, new Descriptor(image.descriptor))
  }
)

export const holdBlob = Effect.fnUntraced(
  function*(writer: OciLayoutWriter.OciLayoutWriter, bytes: Uint8Array) {
    const ingest = yield* writer.ingest(Digest.ofBytes(bytes), bytes.length)
    yield* ingest.write(bytes)
    yield* ingest.commit
  },
  Effect.scoped
)

/** Asks a mirror, as containerd, another mirror or a stranger does. A body that breaks off has status 0. */
export const ask = (url: string, init: RequestInit = {}): Effect.Effect<Answer> =>
  Effect.promise(async (signal) => {
    try {
      const response = await fetch(url, { ...init, signal })
      return {
        status: response.status,
        headers: response.headers,
        body: Buffer.from(await response.arrayBuffer())
      }
    } catch {
      return { status: 0, headers: new Headers(), body: Buffer.alloc(0) }
    }
  })

/** The paths of an image's parts, as containerd asks a mirror of `registry` for them. */
export const manifestPath = (repository: string, tag: string, registry = "docker.io") =>
  `/v2/${repository}/manifests/${tag}?ns=${registry}`
export const blobPath = (repository: string, bytes: Uint8Array, registry = "docker.io") =>
  `/v2/${repository}/blobs/${Digest.ofBytes(bytes)}?ns=${registry}`

/** A cluster without nodes: `start` adds them. Everything ends with the scope. */
export const make = Effect.fnUntraced(function*({ network, peerAuth }: ClusterOptions) {
  const ports = yield* MirrorPorts.free
  const keyFile = join(yield* temporary, "cluster-key")
  const key = generate()
  yield* Effect.promise(() => writeFile(keyFile, `${key}\n`, { mode: 0o600 }))
  const ring = ringOf(key)
  const bootstrap = `${network}.2:${ports.router}`

  const start = Effect.fnUntraced(function*(host: number, options: NodeOptions = {}) {
    const { blobs = [], environment = {}, flags = [], images = {}, keyFile: ownKeyFile = keyFile } = options
    const address = `${network}.${host}`
    const directory = options.directory ?? (yield* temporary)
    const writer = yield* OciLayoutWriter.make({ root: join(directory, "layout") })
    for (const [name, image] of Object.entries(images)) yield* hold(writer, name, image)
    yield* Effect.forEach(blobs, (bytes) => holdBlob(writer, bytes))
    const { child, output } = yield* SpegelProcess.start([
      "registry",
      ...MirrorPorts.flags(address, ports),
      `--data-dir=${join(directory, "data")}`,
      `--store=oci-layout:${join(directory, "layout")}`,
      "--bootstrap-kind=static",
      `--static-bootstrap-peers=${bootstrap}`,
      `--node-name=node-${host}`,
      `--peer-auth=${peerAuth}`,
      ...(peerAuth === "off" ? [] : [`--cluster-key-file=${ownKeyFile}`]),
      ...flags
    ], environment)
    const url = `http://${address}:${ports.registry}`
    const metrics = `http://${address}:${ports.metrics}`
    yield* SpegelProcess.untilReady(url)
    const ownKey = yield* Effect.promise(() => readFile(ownKeyFile, "utf8"))
    const token = `Bearer ${ClientToken.make(ringOf(ownKey), `node-${host}`)}`
    const peers = Effect.map(
      ask(`${metrics}/debug/peers`),
      ({ body }) => JSON.parse(body.toString()) as ReadonlyArray<KnownPeer>
    )
    const [self] = yield* peers
    return {
      address,
      url,
      metrics,
      writer,
      child,
      id: self?.id ?? "",
      /** Asks it as its own containerd does. */
      pull: (path: string, init: RequestInit = {}) =>
        ask(`${url}${path}`, { ...init, headers: { authorization: token, ...init.headers as Record<string, string> } }),
      /** The other members that it has heard from. */
      members: Effect.map(
        peers,
        ([, ...others]) => others.filter(({ lastHeardMillis }) => lastHeardMillis !== undefined)
      ),
      /** The sum of a metric's series that have these labels. */
      metric: (name: string, labels: Readonly<Record<string, string>> = {}) =>
        Effect.map(ask(`${metrics}/metrics`), ({ body }) => sumOf(body.toString(), name, labels)),
      /** Its log at WARN and above, one line each. */
      warnings: () => output.stderr.split("\n").filter((line) => /"level":"(?:WARN|ERROR|FATAL)"/.test(line)),
      log: () => output.stderr
    }
  })
  return { network, ports, bootstrap, ring, keyFile, start }
})

export type AttackedCluster = Effect.Success<ReturnType<typeof make>>
export type AttackedNode = Effect.Success<ReturnType<AttackedCluster["start"]>>

const sumOf = (exposition: string, name: string, labels: Readonly<Record<string, string>>): number =>
  exposition.split("\n")
    .filter((line) =>
      (line.startsWith(`${name} `) || line.startsWith(`${name}{`)) &&
      Object.entries(labels).every(([label, value]) => line.includes(`${label}="${value}"`))
    )
    .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" "))), 0)

/** Looks four times a second, for 20 s: the nodes need the processor more than the test does. */
export const until = (condition: Effect.Effect<boolean>, what: string): Effect.Effect<void> =>
  condition.pipe(
    Effect.filterOrFail((holds) => holds, () => "not yet" as const),
    Effect.retry({ schedule: Schedule.spaced("250 millis"), times: 80 }),
    Effect.catch(() => Effect.die(new Error(`within 20 s it has not come about that ${what}`))),
    Effect.asVoid
  )

/** Waits until all of the nodes have heard from each other. */
export const untilTogether = (nodes: ReadonlyArray<AttackedNode>): Effect.Effect<void> =>
  Effect.forEach(nodes, ({ members }) =>
    until(
      Effect.map(members, (known) => {
        const ids = new Set(known.map(({ id }) => id))
        return nodes.filter(({ id }) => ids.has(id)).length === nodes.length - 1
      }),
      `${nodes.length} nodes know each other`
    ), { discard: true })
