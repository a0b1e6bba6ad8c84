/**
 * Writes an OCI image layout as a client does that stores what it pulls: bytes go to `ingest/`, and become a blob only
 * when their digest is right. The reading side is `OciLayout`.
 */
import { Descriptor } from "@spegel-ts/oci/Descriptor"
import * as Digest from "@spegel-ts/oci/Digest"
import * as Manifest from "@spegel-ts/oci/Manifest"
import * as Reference from "@spegel-ts/oci/Reference"
import { Data, Effect, Option, Schema, type Scope, Semaphore } from "effect"
import { createHash, randomUUID } from "node:crypto"
import { chmod, mkdir, open, readFile, rename, rm, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { StoreUnavailable } from "./ContentStore.ts"
import { readSmall } from "./internal/BoundedFile.ts"
import { codeOf } from "./internal/FileFailure.ts"
import { maxIndexSize, nameAnnotations, nameOf } from "./OciLayout.ts"

/** The bytes written are not those of the digest and size that were announced; nothing was kept. */
export class DigestMismatch extends Data.TaggedError("DigestMismatch")<{
  readonly expected: Digest.Digest
  readonly actual: string
  readonly size: number
  readonly written: number
}> {
  override get message() {
    return `expected ${this.size} bytes of ${this.expected}, but the ${this.written} bytes written have ${this.actual}`
  }
}

/** One blob being written; gone with its scope unless committed. */
export interface IngestWriter {
  /** Appends. After a failure the ingest is spoilt and cannot be committed, nor can it be written to once it was. */
  readonly write: (bytes: Uint8Array) => Effect.Effect<void, StoreUnavailable>
  /** Bytes written so far. */
  readonly written: Effect.Effect<number>
  /** Makes it a blob, if it is what was announced. Once only. */
  readonly commit: Effect.Effect<void, DigestMismatch | StoreUnavailable>
}

export interface OciLayoutWriter {
  /** Starts a blob of `size` bytes. Of sha256 only: no other digests are read from a layout. */
  readonly ingest: (
    digest: Digest.Digest,
    size: number
  ) => Effect.Effect<IngestWriter, StoreUnavailable, Scope.Scope>
  /** The bytes of a committed blob. */
  readonly read: (digest: Digest.Digest) => Effect.Effect<Uint8Array, StoreUnavailable>
  /** Points a name with a tag to a manifest, replacing what it pointed to; all else in the index stays as it is. */
  readonly tag: (reference: Reference.Reference, descriptor: Descriptor) => Effect.Effect<void, StoreUnavailable>
  /** Removes a name; its blobs stay. */
  readonly untag: (reference: Reference.Reference) => Effect.Effect<void, StoreUnavailable>
}

const [containerdName, nameAnnotation] = nameAnnotations

const refused = (hint: string) => new StoreUnavailable({ operation: "write the image layout", hint })

/** An index as it stands in the file, with whatever fields others have put there. */
interface RawIndex {
  readonly manifests?: ReadonlyArray<{ readonly annotations?: Readonly<Record<string, unknown>> | null } | null> | null
}

type RawManifests = NonNullable<RawIndex["manifests"]>

const tryWrite = <A>(path: string, run: () => Promise<A>): Effect.Effect<A, StoreUnavailable> =>
  Effect.tryPromise({
    try: run,
    catch: (cause) =>
      new StoreUnavailable({ operation: "write the image layout", hint: `${path}: ${String(cause)}`, cause })
  })

/**
 * Opens the layout at `root` for writing; makes an empty one where there is none. One writer at a time: `index.json`
 * is read, changed and replaced, so a second process could undo a change.
 */
export const make = Effect.fn("OciLayoutWriter.make")(function*(options: { readonly root: string }) {
  const { root } = options
  const blobs = join(root, "blobs", "sha256")
  const indexPath = join(root, "index.json")
  const oneAtATime = yield* Semaphore.make(1)

  const pathOf = (digest: Digest.Digest) =>
    Digest.algorithm(digest) === "sha256"
      ? Effect.succeed(join(blobs, Digest.hex(digest)))
      : Effect.fail(refused(`${digest} is no sha256 digest, and no other can be kept`))

  const writeIndex = Effect.fnUntraced(function*(index: RawIndex) {
    const text = JSON.stringify(index)
    if (Buffer.byteLength(text) > maxIndexSize) {
      return yield* refused(`${indexPath} would be larger than ${maxIndexSize} bytes; remove names that are not needed`)
    }
    const temporary = join(root, `.index.${randomUUID()}`)
    yield* tryWrite(indexPath, async () => {
      await writeFile(temporary, text)
      await rename(temporary, indexPath)
    }).pipe(Effect.onError(() => Effect.promise(() => rm(temporary, { force: true }))))
  })
  const readIndex = Effect.gen(function*() {
    const bytes = yield* tryWrite(indexPath, () => readSmall(indexPath, maxIndexSize))
    if (bytes === undefined) return yield* refused(`${indexPath} is no file of at most ${maxIndexSize} bytes`)
    yield* Effect.mapError(
      Effect.fromResult(Manifest.readIndex(bytes)),
      ({ reason }) => refused(`${indexPath}: ${reason}`)
    )
    return JSON.parse(bytes.toString("utf8")) as RawIndex
  })
  const editManifests = (edit: (manifests: RawManifests) => RawManifests) =>
    oneAtATime.withPermits(1)(
      Effect.flatMap(readIndex, (index) => writeIndex({ ...index, manifests: edit(index.manifests ?? []) }))
    )
  const without = (reference: Reference.Reference) => (manifests: RawManifests) =>
    manifests.filter((entry) =>
      !Option.exists(nameOf(entry?.annotations ?? {}), (held) => Reference.name(held) === Reference.name(reference))
    )

  /** Makes a file of the layout where there is none. */
  const createFile = (name: string, text: string) =>
    tryWrite(join(root, name), () =>
      writeFile(join(root, name), text, { flag: "wx" }).catch((cause: unknown) => {
        if (codeOf(cause) !== "EEXIST") throw cause
      }))
  yield* tryWrite(root, async () => {
    await mkdir(blobs, { recursive: true })
    await mkdir(join(root, "ingest"), { recursive: true })
  })
  yield* createFile("oci-layout", JSON.stringify({ imageLayoutVersion: "1.0.0" }))
  yield* createFile("index.json", JSON.stringify({ schemaVersion: 2, manifests: [] }))

  const ingest = Effect.fnUntraced(function*(digest: Digest.Digest, size: number) {
    const path = yield* pathOf(digest)
    const directory = join(root, "ingest", randomUUID())
    const data = join(directory, "data")
    const hash = createHash("sha256")
    let written = 0
    let state: "open" | "spoilt" | "done" = "open"
    yield* Effect.acquireRelease(
      tryWrite(directory, async () => {
        await mkdir(directory)
        await writeFile(join(directory, "ref"), `layer-${digest}`)
        await writeFile(join(directory, "total"), String(size))
      }),
      () => Effect.promise(() => rm(directory, { recursive: true, force: true }))
    )
    const file = yield* Effect.acquireRelease(
      tryWrite(data, () => open(data, "wx", 0o644)),
      (file) => Effect.promise(() => file.close())
    )
    const whileOpen = Effect.suspend(() =>
      state === "open"
        ? Effect.void
        : Effect.fail(refused(`${data} ${state === "done" ? "is committed already" : "could not be written before"}`))
    )
    return {
      written: Effect.sync(() => written),
      write: Effect.fnUntraced(function*(bytes) {
        yield* whileOpen
        if (written + bytes.length > size) {
          state = "spoilt"
          return yield* refused(`${data}: more than the ${size} bytes announced for ${digest}`)
        }
        // An interrupted or failed write leaves an unknown number of bytes.
        state = "spoilt"
        yield* tryWrite(data, () => file.writeFile(bytes))
        hash.update(bytes)
        written += bytes.length
        state = "open"
      }),
      commit: Effect.gen(function*() {
        yield* whileOpen
        state = "done"
        const actual = `sha256:${hash.digest("hex")}`
        if (actual !== digest || written !== size) {
          return yield* new DigestMismatch({ expected: digest, actual, size, written })
        }
        yield* tryWrite(data, async () => {
          await chmod(data, 0o444)
          await rename(data, path)
        })
      })
    } satisfies IngestWriter
  })

  return {
    ingest,
    read: (digest) => Effect.flatMap(pathOf(digest), (path) => tryWrite(path, () => readFile(path))),
    tag: Effect.fn("OciLayoutWriter.tag")(function*(reference, descriptor) {
      const { [containerdName]: _, ...annotations } = descriptor.annotations ?? {}
      const entry = yield* Effect.orDie(
        Schema.encodeEffect(Descriptor)(
          new Descriptor({
            ...descriptor,
            annotations: { ...annotations, [nameAnnotation]: Reference.name(reference) }
          })
        )
      )
      yield* editManifests((manifests) => [...without(reference)(manifests), entry])
    }),
    untag: Effect.fn("OciLayoutWriter.untag")((reference) => editManifests(without(reference)))
  } satisfies OciLayoutWriter
})
