/**
 * Writes an OCI image layout, as a client that stores what it pulls: bytes go to `ingest/`, and become a blob only if
 * their digest is right. `OciLayout` reads it.
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

/** The written bytes do not have the announced digest and size. Nothing was kept. */
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

/** One blob being written. It is removed with its scope, unless it was committed. */
export interface IngestWriter {
  /** Appends bytes. Fails after the commit. After a failure the ingest can no longer be written or committed. */
  readonly write: (bytes: Uint8Array) => Effect.Effect<void, StoreUnavailable>
  /** Bytes written so far. */
  readonly written: Effect.Effect<number>
  /** Makes it a blob if digest and size are as announced. Can be called once. */
  readonly commit: Effect.Effect<void, DigestMismatch | StoreUnavailable>
}

/**
 * Writes one layout. Its effects fail with `StoreUnavailable` if a file cannot be written or `index.json` cannot be
 * read.
 */
export interface OciLayoutWriter {
  /** Starts a blob of `size` bytes. Fails unless the digest is sha256: stores read no others. */
  readonly ingest: (
    digest: Digest.Digest,
    size: number
  ) => Effect.Effect<IngestWriter, StoreUnavailable, Scope.Scope>
  /** The bytes of a committed blob. */
  readonly read: (digest: Digest.Digest) => Effect.Effect<Uint8Array, StoreUnavailable>
  /** Points a name with a tag to a manifest, whatever it pointed to before. The rest of the index stays as it is. */
  readonly tag: (reference: Reference.Reference, descriptor: Descriptor) => Effect.Effect<void, StoreUnavailable>
  /** Removes a name; its blobs stay. */
  readonly untag: (reference: Reference.Reference) => Effect.Effect<void, StoreUnavailable>
}

const [containerdName, nameAnnotation] = nameAnnotations

const refused = (hint: string) => new StoreUnavailable({ operation: "write the image layout", hint })

/** An index as it is in the file, including fields that others have added. */
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

const blobPath = (root: string, digest: Digest.Digest) =>
  Digest.algorithm(digest) === "sha256"
    ? Effect.succeed(join(root, "blobs", "sha256", Digest.hex(digest)))
    : Effect.fail(refused(`${digest} is not a sha256 digest: no others can be kept`))

const readIndex = Effect.fnUntraced(function*(path: string) {
  const bytes = yield* tryWrite(path, () => readSmall(path, maxIndexSize))
  if (bytes === undefined) return yield* refused(`${path} is not a file of at most ${maxIndexSize} bytes`)
  yield* Effect.mapError(Effect.fromResult(Manifest.readIndex(bytes)), ({ reason }) => refused(`${path}: ${reason}`))
  return JSON.parse(bytes.toString("utf8")) as RawIndex
})

const writeIndex = Effect.fnUntraced(function*(root: string, path: string, index: RawIndex) {
  const text = JSON.stringify(index)
  if (Buffer.byteLength(text) > maxIndexSize) {
    return yield* refused(`${path} would be larger than ${maxIndexSize} bytes; remove names that are not needed`)
  }
  const temporary = join(root, `.index.${randomUUID()}`)
  yield* tryWrite(path, async () => {
    await writeFile(temporary, text)
    await rename(temporary, path)
  }).pipe(Effect.onError(() => Effect.promise(() => rm(temporary, { force: true }))))
})

/** The entries without those that have the name `reference`. */
const without = (manifests: RawManifests, reference: Reference.Reference): RawManifests =>
  manifests.filter((entry) =>
    !Option.exists(nameOf(entry?.annotations ?? {}), (held) => Reference.name(held) === Reference.name(reference))
  )

/** The entry of an index that gives a manifest the name `reference`. */
const entryOf = (reference: Reference.Reference, descriptor: Descriptor) => {
  const { [containerdName]: _, ...annotations } = descriptor.annotations ?? {}
  return Effect.orDie(
    Schema.encodeEffect(Descriptor)(
      new Descriptor({ ...descriptor, annotations: { ...annotations, [nameAnnotation]: Reference.name(reference) } })
    )
  )
}

/** Makes the directory of a download, as containerd does; it is removed with the scope. */
const ingestDirectory = (root: string, digest: Digest.Digest, size: number) => {
  const directory = join(root, "ingest", randomUUID())
  return Effect.acquireRelease(
    tryWrite(directory, async () => {
      await mkdir(directory)
      await writeFile(join(directory, "ref"), `layer-${digest}`)
      await writeFile(join(directory, "total"), String(size))
      return directory
    }),
    () => Effect.promise(() => rm(directory, { recursive: true, force: true }))
  )
}

const ingest = Effect.fnUntraced(function*(root: string, digest: Digest.Digest, size: number) {
  const path = yield* blobPath(root, digest)
  const data = join(yield* ingestDirectory(root, digest, size), "data")
  const file = yield* Effect.acquireRelease(
    tryWrite(data, () => open(data, "wx", 0o644)),
    (file) => Effect.promise(() => file.close())
  )
  const hash = createHash("sha256")
  let written = 0
  let state: "open" | "spoilt" | "done" = "open"
  const whileOpen = Effect.suspend(() =>
    state === "open"
      ? Effect.void
      : Effect.fail(refused(`${data} ${state === "done" ? "is committed already" : "could not be written before"}`))
  )
  return {
    written: Effect.sync(() => written),
    write: Effect.fnUntraced(function*(bytes) {
      yield* whileOpen
      // An interrupted or failed write leaves an unknown number of bytes.
      state = "spoilt"
      if (written + bytes.length > size) {
        return yield* refused(`${data}: more than the ${size} bytes announced for ${digest}`)
      }
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

/** Makes the missing directories and files of a layout. */
const makeLayout = (root: string) => {
  const create = (name: string, text: string) =>
    writeFile(join(root, name), text, { flag: "wx" }).catch((cause: unknown) => {
      if (codeOf(cause) !== "EEXIST") throw cause
    })
  return tryWrite(root, async () => {
    await mkdir(join(root, "blobs", "sha256"), { recursive: true })
    await mkdir(join(root, "ingest"), { recursive: true })
    await create("oci-layout", JSON.stringify({ imageLayoutVersion: "1.0.0" }))
    await create("index.json", JSON.stringify({ schemaVersion: 2, manifests: [] }))
  })
}

/**
 * Opens the layout at `root` for writing; makes an empty one if there is none. Use one writer at a time: it reads,
 * changes and replaces `index.json`, so two processes could undo each other's changes.
 */
export const make = Effect.fn("OciLayoutWriter.make")(function*(options: { readonly root: string }) {
  const { root } = options
  const indexPath = join(root, "index.json")
  const oneAtATime = yield* Semaphore.make(1)
  yield* makeLayout(root)

  const edit = (change: (manifests: RawManifests) => RawManifests) =>
    oneAtATime.withPermits(1)(
      Effect.flatMap(
        readIndex(indexPath),
        (index) => writeIndex(root, indexPath, { ...index, manifests: change(index.manifests ?? []) })
      )
    )
  return {
    ingest: (digest, size) => ingest(root, digest, size),
    read: (digest) => Effect.flatMap(blobPath(root, digest), (path) => tryWrite(path, () => readFile(path))),
    tag: Effect.fn("OciLayoutWriter.tag")(function*(reference, descriptor) {
      const entry = yield* entryOf(reference, descriptor)
      yield* edit((manifests) => [...without(manifests, reference), entry])
    }),
    untag: Effect.fn("OciLayoutWriter.untag")((reference) => edit((manifests) => without(manifests, reference)))
  } satisfies OciLayoutWriter
})
