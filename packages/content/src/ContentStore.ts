/**
 * What this node holds: names (tags) and blobs, as containerd, an OCI image layout or a test keeps them.
 *
 * A blob is listed and opened only once it is complete and verified; downloads under way are `inProgress`.
 */
import type { Digest } from "@spegel-ts/oci/Digest"
import type { Reference } from "@spegel-ts/oci/Reference"
import { Context, Data, type Effect, type Option, type Scope, type Stream } from "effect"
import type { FileHandle } from "node:fs/promises"

/** The store answered, and it does not hold `content` (a digest or a name). */
export class ContentNotFound extends Data.TaggedError("ContentNotFound")<{ readonly content: string }> {
  override get message() {
    return `${this.content} is not held by this node`
  }
}

/** The store could not be asked. `operation` says what was tried, `hint` what a person can do about it. */
export class StoreUnavailable extends Data.TaggedError("StoreUnavailable")<{
  readonly operation: string
  readonly hint: string
  readonly cause?: unknown
}> {
  override get message() {
    return `${this.operation}: ${this.hint}`
  }
}

/** An image name held by this node. The reference has a tag and no digest. */
export interface Name {
  readonly reference: Reference
  readonly digest: Digest
}

/** One difference to the set of what is held. `Resync` means that differences were lost: list again. */
export type ContentChange = Data.TaggedEnum<{
  BlobAdded: { readonly digest: Digest }
  BlobRemoved: { readonly digest: Digest }
  NameAdded: Name
  NameRemoved: { readonly reference: Reference }
  Resync: {}
}>
export const ContentChange = Data.taggedEnum<ContentChange>()

/** A download under way. Its bytes are not verified yet. */
export interface Ingest {
  /** containerd's namespace of the download; empty where the store has no namespaces. */
  readonly namespace: string
  /** The store's own name of the download, unique within the namespace: `layer-sha256:...`. */
  readonly ref: string
  readonly digest: Digest
  readonly path: string
  /** The total that it will have, in bytes. */
  readonly size: number
  readonly written: number
}

/**
 * What has become of a download's file. It is told by the file itself and not by names: another download of the same
 * content, of another client or begun later, is another file.
 */
export type IngestState = Data.TaggedEnum<{
  /** It has its place still: more may be written to it, or its owner has not decided yet. Times in milliseconds. */
  InProgress: { readonly written: number; readonly modified: number }
  /** Its owner found it right: it is the blob that its digest names. */
  Committed: {}
  /** Its owner deleted it, whatever the reason; as long as it is open it can be read. */
  Deleted: { readonly written: number }
  /** It is neither at its place nor the blob: it is being renamed at this moment, or somebody else has moved it. */
  Moved: {}
}>
export const IngestState = Data.taggedEnum<IngestState>()

/** A download's file, opened for reading. It remains the same file when it is renamed or deleted. */
export interface OpenIngest {
  /** The file's descriptor, open while the scope is. */
  readonly descriptor: number
  readonly state: Effect.Effect<IngestState, StoreUnavailable>
  /** Its bytes from `start` on, as far as it has come. */
  readonly chunks: (start: number) => AsyncIterable<Buffer>
}

/**
 * The bytes of a held blob, `[0, size)`. A `File`'s handle is closed with the scope it was opened in. Only immutable
 * (committed) blobs are ever opened.
 */
export type BlobSource = Data.TaggedEnum<{
  File: { readonly handle: FileHandle; readonly size: number }
  Bytes: { readonly bytes: Uint8Array; readonly size: number }
}>
export const BlobSource = Data.taggedEnum<BlobSource>()

/** What this node holds. Every layer of this service passes `ContentStoreConformance`. */
export class ContentStore extends Context.Service<ContentStore, {
  /** The digest that a name with a tag points to now. */
  readonly resolve: (reference: Reference) => Effect.Effect<Digest, ContentNotFound | StoreUnavailable>
  /** Size of a complete blob in bytes. */
  readonly size: (digest: Digest) => Effect.Effect<number, ContentNotFound | StoreUnavailable>
  /**
   * The media type of a held manifest or index: the one that the store keeps it under (of `name` first, where several
   * do), else the one that its bytes tell. None for what is no manifest, and where the type is in doubt.
   */
  readonly manifestType: (
    digest: Digest,
    name: Option.Option<Reference>
  ) => Effect.Effect<Option.Option<string>, ContentNotFound | StoreUnavailable>
  /** The bytes of a complete blob. */
  readonly open: (digest: Digest) => Effect.Effect<BlobSource, ContentNotFound | StoreUnavailable, Scope.Scope>
  /** Names held now, in no particular order. */
  readonly names: Stream.Stream<Name, StoreUnavailable>
  /** Digests of complete blobs held now, in no particular order. */
  readonly digests: Stream.Stream<Digest, StoreUnavailable>
  /**
   * Differences from the moment of subscription on. Begins with `Resync` once the subscription is in place, so
   * that listing after it misses nothing; never ends by itself.
   */
  readonly changes: Stream.Stream<ContentChange, StoreUnavailable>
  /** Downloads under way at this moment. */
  readonly inProgress: Stream.Stream<Ingest, StoreUnavailable>
  /** Opens a download's file, which may have become a blob, or be gone, since it was listed. */
  readonly openIngest: (
    ingest: Ingest
  ) => Effect.Effect<OpenIngest, ContentNotFound | StoreUnavailable, Scope.Scope>
  /**
   * Throws this one download away, where the store's owner lets others do that: what has its namespace and ref now. One
   * that is gone is no error. Its client fails at the end, if it still runs: only for bytes that are known to be wrong.
   */
  readonly discard: (ingest: Pick<Ingest, "namespace" | "ref">) => Effect.Effect<void, StoreUnavailable>
}>()("@spegel-ts/content/ContentStore") {}
