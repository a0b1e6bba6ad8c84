/**
 * One trial of a holder whose disk has flipped a byte of a large layer: a node without any image pulls it, fails, and tries
 * again as a kubelet or a person would. What each try does is a row of a table.
 */
import { parallelFetch } from "@spegel-ts/faults/Plan"
import * as ContainerdPackages from "@spegel-ts/testing/containerd/ContainerdPackages"
import * as BusyPeer from "@spegel-ts/testing/node/BusyPeer"
import * as Lookup from "@spegel-ts/testing/node/Lookup"
import * as MirrorPorts from "@spegel-ts/testing/node/MirrorPorts"
import * as Node from "@spegel-ts/testing/node/Node"
import * as Upstream from "@spegel-ts/testing/node/Upstream"
import { Cause, Duration, Effect, Exit, Fiber, Schedule, type Scope } from "effect"
import { chmod, open, readdir, readFile } from "node:fs/promises"
import { join } from "node:path"

const mebibyte = 1024 * 1024

export type Place = "first KiB" | "middle" | "last KiB"

/** Other events: the first pull ends in another way, or two run at once. */
export type Disturbance = "none" | "in parts" | "two pulls" | "client killed" | "containerd killed"

export interface Variant {
  readonly verify: "commit" | "stream"
  readonly version: ContainerdPackages.Version
  readonly client: "ctr" | "CRI"
  readonly place: Place
  readonly mebibytes: number
  readonly disturbance: Disturbance
  /** Whether another peer holds the layer, and holds it right. */
  readonly company: "upstream" | "good peer"
  /** When it is tried again, in milliseconds after the first failure. */
  readonly retries: ReadonlyArray<number>
}

export interface Try {
  readonly millis: number
  readonly succeeded: boolean
  /** Why it failed. */
  readonly reason: string
}

export interface Row extends Variant {
  readonly first: string
  readonly tried: ReadonlyArray<Try>
  /** Bytes of blobs that upstream gave from the first failure on. */
  readonly upstreamBytes: number
  /** Complete downloads of the layer that were left after 35 s. */
  readonly poisoned: number
  readonly holderWithdrew: boolean
  readonly corruptions: number
  /** Downloads that its mirror discarded. */
  readonly discarded: number
}

const offsetIn = (place: Place, size: number) =>
  place === "first KiB" ? 100 : place === "middle" ? Math.floor(size / 2) : size - 100

const hexOf = (digest: string) => digest.slice("sha256:".length)

/** Flips one byte of a blob that a node holds: from now on it lies about it. */
export const damage = (node: Node.Node, digest: string, place: Place = "middle") =>
  Effect.promise(async () => {
    const path = join(node.containerd.contentPath, "blobs", "sha256", hexOf(digest))
    await chmod(path, 0o644)
    const file = await open(path, "r+")
    const at = offsetIn(place, (await file.stat()).size)
    const byte = Buffer.alloc(1)
    await file.read(byte, 0, 1, at)
    byte[0] = (byte[0] ?? 0) ^ 0xff
    await file.write(byte, 0, 1, at)
    await file.close()
  })

/** The refs of what containerd is downloading, or has left half done. */
export const ingests = (node: Node.Node) =>
  Effect.promise(async () => {
    const directory = join(node.containerd.contentPath, "ingest")
    const names = await readdir(directory).catch(() => [])
    return Promise.all(names.map((name) => readFile(join(directory, name, "ref"), "utf8").catch(() => "")))
  })

/** The values of a metric, which is named as in the exposition format, quoted for a regular expression. */
export const metric = (node: Node.Node, name: string) =>
  Effect.promise(async () => {
    const text = await (await fetch(`${node.metrics}/metrics`)).text()
    return [...text.matchAll(new RegExp(`^${name}(?:\\{.*\\})? (.+)$`, "gm"))].map(([, value]) => Number(value))
  })

export interface Cluster {
  readonly upstream: Upstream.Upstream
  readonly ports: MirrorPorts.MirrorPorts
  /** Its disk flips bytes. */
  readonly liar: Node.Node
  readonly honest: Node.Node
  /** A blob that only `honest` has, to keep that node busy with. */
  readonly ballast: string
  readonly turns: { count: number }
}

/** A cluster that any number of trials share. */
export const cluster: Effect.Effect<Cluster, never, Scope.Scope> = Effect.gen(function*() {
  const upstream = yield* Upstream.start
  const ports = yield* MirrorPorts.free
  const liar = yield* Node.start(1, ports, upstream.host)
  const honest = yield* Node.start(2, ports, upstream.host)
  const ballast = yield* upstream.push({ tag: "ballast", layers: 1, layerSize: 64 * mebibyte })
  yield* honest.pull(ballast.name)
  return {
    upstream,
    ports,
    liar,
    honest,
    ballast: ballast.objects.at(-1)?.descriptor.digest ?? "",
    turns: { count: 0 }
  }
}).pipe(Effect.orDie)

const pullOf = (node: Node.Node, { client, disturbance }: Variant, name: string): Effect.Effect<void, unknown> => {
  const one = client === "ctr" ? node.pull(name) : node.pullByCri(name)
  // The second waits for the first one's download, as two pods of one image do.
  return disturbance === "two pulls"
    ? Effect.all([one, node.pullByCri(name)], { concurrency: "unbounded", discard: true })
    : Effect.asVoid(one)
}

/** Starts a pull and ends it early, if the variant says so. */
const disturbed = Effect.fnUntraced(function*(node: Node.Node, variant: Variant, name: string) {
  if (variant.disturbance !== "client killed" && variant.disturbance !== "containerd killed") return
  const pulling = yield* Effect.forkScoped(Effect.exit(pullOf(node, variant, name)))
  yield* Node.untilPulling(node)
  if (pulling.pollUnsafe() !== undefined) {
    return yield* Effect.die(new Error("the pull was over before it was disturbed"))
  }
  if (variant.disturbance === "client killed") yield* Fiber.interrupt(pulling)
  else yield* node.containerd.restart
  yield* Fiber.await(pulling)
})

/** Makes an image, damages it at its holder, and pulls it on a new node; gives the log of its mirror, too. */
export const trial = (
  { ballast, honest, liar, ports, turns, upstream }: Cluster,
  variant: Variant
): Effect.Effect<{ readonly row: Row; readonly log: string }> =>
  Effect.scoped(Effect.gen(function*() {
    const { company, disturbance, mebibytes, place, verify, version } = variant
    const turn = ++turns.count
    const image = yield* upstream.push({
      tag: `v${turn}`,
      layers: 1,
      layerSize: mebibytes * mebibyte,
      seed: turn
    })
    const layer = image.objects.at(-1)?.descriptor.digest ?? ""
    // A disk is full after some gigabytes.
    yield* Effect.addFinalizer(() =>
      Effect.andThen(
        upstream.clear,
        Effect.forEach([liar, honest], ({ remove }) => Effect.ignore(remove(image.name)), { discard: true })
      )
    )
    yield* liar.pull(image.name)
    if (company === "good peer") yield* honest.pull(image.name)
    yield* damage(liar, layer, place)
    const node = yield* Node.start(turn + 2, ports, upstream.host, {
      programs: yield* ContainerdPackages.fetch(version),
      // On a busy machine no lookup is late.
      registry: ["--mirror-resolve-timeout=5s", "--mirror-hedge-delay=30s", `--mirror-verify=${verify}`],
      ...(disturbance === "in parts" ? { settings: parallelFetch } : {})
    })
    yield* Lookup.untilFound(node.url, upstream.repository, [`blobs/${layer}`])
    const pull = pullOf(node, variant, image.name)
    const first = yield* Effect.scoped(Effect.gen(function*() {
      if (company === "good peer") {
        yield* Lookup.untilFound(node.url, upstream.repository, [`blobs/${ballast}`])
        yield* BusyPeer.occupy(`${node.url}/v2/team/app/blobs/${ballast}?ns=${upstream.host}`)
      }
      yield* disturbed(node, variant, image.name)
      return yield* Effect.exit(pull)
    }))
    const failedAt = performance.now()
    upstream.state.blobBytes = 0
    const tried: Array<Try> = []
    for (const millis of variant.retries) {
      if (tried.at(-1)?.succeeded === true) break
      yield* Effect.sleep(Duration.millis(Math.max(0, failedAt + millis - performance.now())))
      const exit = yield* Effect.exit(pull)
      const reason = Exit.match(exit, { onFailure: (cause) => String(Cause.squash(cause)), onSuccess: () => "" })
      tried.push({ millis, succeeded: Exit.isSuccess(exit), reason })
    }
    const upstreamBytes = upstream.state.blobBytes
    const left = Effect.map(ingests(node), (refs) => refs.filter((ref) => ref.endsWith(layer)).length)
    const poisoned = yield* left.pipe(
      Effect.repeat({ schedule: Schedule.spaced("500 millis"), until: (count) => count === 0, times: 70 })
    )
    const withdrew = Effect.sync(() => liar.mirror.output.stderr.includes(`copy of ${layer} is damaged`))
    // It rests after each check, nine times as long as that took.
    const holderWithdrew = yield* withdrew.pipe(
      Effect.repeat({ schedule: Schedule.spaced("100 millis"), until: (told) => told, times: 1200 })
    )
    const [corruptions = 0] = yield* metric(node, "spegel_mirror_corruptions_total")
    const [discarded = 0] = yield* metric(node, "spegel_mirror_ingests_discarded_total")
    const row: Row = {
      ...variant,
      first: Exit.isSuccess(first) ? "ok" : "fails",
      tried,
      upstreamBytes,
      poisoned,
      holderWithdrew,
      corruptions,
      discarded
    }
    return { row, log: node.mirror.output.stderr }
  })).pipe(Effect.orDie)

/** The table of what was tried, in Markdown. */
export const table = (rows: ReadonlyArray<Row>): string => {
  const head = [
    "verified by",
    "containerd",
    "client",
    "MiB",
    "flipped in",
    "beside",
    "disturbed by",
    "first",
    "retries",
    "of upstream",
    "discarded",
    "left after 35 s",
    "holder withdrew"
  ]
  const lines = rows.map((row) => [
    row.verify,
    row.version,
    row.client,
    String(row.mebibytes),
    row.place,
    row.company,
    row.disturbance,
    row.first,
    row.tried.map(({ millis, succeeded }) => `${millis} ms ${succeeded ? "ok" : "fails"}`).join(", "),
    `${Math.round(row.upstreamBytes / mebibyte)} MiB`,
    String(row.discarded),
    String(row.poisoned),
    row.holderWithdrew ? "yes" : "no"
  ])
  return [head, head.map(() => "---"), ...lines].map((cells) => `| ${cells.join(" | ")} |`).join("\n")
}
