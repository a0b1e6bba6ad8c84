/**
 * Writes an OCI image layout as a client does that stores what it pulls: bytes go to `ingest/`, and become a blob only
 * when their digest is right. The reading side is `OciLayout`.
 */
import { Descriptor } from "@spegel-ts/oci/Descriptor"
import * as Digest from "@spegel-ts/oci/Digest"
import * as Reference from "@spegel-ts/oci/Reference"
import { Data, Effect, Schema, type Scope, Semaphore } from "effect"
import { createHash, randomUUID } from "node:crypto"
import { mkdir, open, readFile, rename, rm, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { StoreUnavailable } from "./ContentStore.ts"
import { LayoutIndex } from "./OciLayout.ts"

/** The bytes written are not what the digest says; nothing was kept. */
export class DigestMismatch extends Data.TaggedError("DigestMismatch")<{
  readonly expected: Digest.Digest
  readonly actual: string
  readonly written: number
}> {
  override get message() {
    return `expected ${this.expected}, but the ${this.written} bytes written have ${this.actual}`
  }
}

/** One blob being written; gone with its scope unless committed. */
export interface IngestWriter {
  readonly write: (bytes: Uint8Array) => Effect.Effect<void, StoreUnavailable>
  /** Bytes written so far. */
  readonly written: Effect.Effect<number>
  readonly commit: Effect.Effect<void, DigestMismatch | StoreUnavailable>
}

export interface OciLayoutWriter {
  /** Starts a blob of `size` bytes. */
  readonly ingest: (
    digest: Digest.Digest,
    size: number
  ) => Effect.Effect<IngestWriter, StoreUnavailable, Scope.Scope>
  /** The bytes of a committed blob. */
  readonly read: (digest: Digest.Digest) => Effect.Effect<Uint8Array, StoreUnavailable>
  /** Points a name with a tag to a manifest, replacing what it pointed to. */
  readonly tag: (reference: Reference.Reference, descriptor: Descriptor) => Effect.Effect<void, StoreUnavailable>
  /** Removes a name; its blobs stay. */
  readonly untag: (reference: Reference.Reference) => Effect.Effect<void, StoreUnavailable>
}

const nameAnnotation = "org.opencontainers.image.ref.name"

const tryWrite = <A>(path: string, run: () => Promise<A>): Effect.Effect<A, StoreUnavailable> =>
  Effect.tryPromise({
    try: run,
    catch: (cause) =>
      new StoreUnavailable({ operation: "write the image layout", hint: `${path}: ${String(cause)}`, cause })
  })

/** Opens the layout at `root` for writing; makes an empty one where there is none. */
export const make = Effect.fn("OciLayoutWriter.make")(function*(options: { readonly root: string }) {
  const { root } = options
  const blobs = join(root, "blobs", "sha256")
  const indexPath = join(root, "index.json")
  const oneAtATime = yield* Semaphore.make(1)

  const writeIndex = (manifests: ReadonlyArray<Descriptor>) => {
    const temporary = join(root, `.index.${randomUUID()}`)
    return Schema.encodeEffect(LayoutIndex)({ schemaVersion: 2, manifests }).pipe(
      Effect.orDie,
      Effect.flatMap((text) =>
        tryWrite(indexPath, async () => {
          await writeFile(temporary, text)
          await rename(temporary, indexPath)
        })
      )
    )
  }
  const readIndex = tryWrite(indexPath, () => readFile(indexPath, "utf8")).pipe(
    Effect.flatMap(Schema.decodeUnknownEffect(LayoutIndex)),
    Effect.mapError((cause) =>
      new StoreUnavailable({ operation: "write the image layout", hint: `${indexPath}: ${cause.message}`, cause })
    )
  )
  const editIndex = (edit: (manifests: ReadonlyArray<Descriptor>) => ReadonlyArray<Descriptor>) =>
    oneAtATime.withPermits(1)(Effect.flatMap(readIndex, (index) => writeIndex(edit(index.manifests))))
  const without = (reference: Reference.Reference) => (manifests: ReadonlyArray<Descriptor>) =>
    manifests.filter(({ annotations }) => annotations?.[nameAnnotation] !== Reference.name(reference))

  yield* tryWrite(root, async () => {
    await mkdir(blobs, { recursive: true })
    await mkdir(join(root, "ingest"), { recursive: true })
    await writeFile(join(root, "oci-layout"), JSON.stringify({ imageLayoutVersion: "1.0.0" }))
  })
  const isNew = yield* Effect.promise(() => readFile(indexPath).then(() => false, () => true))
  if (isNew) yield* writeIndex([])

  const ingest = Effect.fnUntraced(function*(digest: Digest.Digest, size: number) {
    const directory = join(root, "ingest", randomUUID())
    const data = join(directory, "data")
    const hash = createHash(Digest.algorithm(digest))
    let written = 0
    yield* Effect.acquireRelease(
      tryWrite(directory, async () => {
        await mkdir(directory)
        await writeFile(join(directory, "ref"), `layer-${digest}`)
        await writeFile(join(directory, "total"), String(size))
      }),
      () => Effect.promise(() => rm(directory, { recursive: true, force: true }))
    )
    const file = yield* Effect.acquireRelease(
      tryWrite(data, () => open(data, "w", 0o644)),
      (file) => Effect.promise(() => file.close())
    )
    return {
      written: Effect.sync(() => written),
      write: (bytes) =>
        tryWrite(data, async () => {
          hash.update(bytes)
          await file.writeFile(bytes)
          written += bytes.length
        }),
      commit: Effect.gen(function*() {
        const actual = `${Digest.algorithm(digest)}:${hash.digest("hex")}`
        if (actual !== digest) return yield* new DigestMismatch({ expected: digest, actual, written })
        yield* tryWrite(data, () => rename(data, join(blobs, Digest.hex(digest))))
      })
    } satisfies IngestWriter
  })

  return {
    ingest,
    read: (digest) => {
      const path = join(blobs, Digest.hex(digest))
      return tryWrite(path, () => readFile(path))
    },
    tag: Effect.fn("OciLayoutWriter.tag")((reference, descriptor) =>
      editIndex((manifests) => [
        ...without(reference)(manifests),
        new Descriptor({
          ...descriptor,
          annotations: { ...descriptor.annotations, [nameAnnotation]: Reference.name(reference) }
        })
      ])
    ),
    untag: Effect.fn("OciLayoutWriter.untag")((reference) => editIndex(without(reference)))
  } satisfies OciLayoutWriter
})
