/**
 * The content that this node holds: names (tags) and blobs.
 *
 * A blob is listed and opened only once it is complete and verified; downloads in progress are `inProgress`.
 */
import type { Digest } from "@spegel-ts/oci/Digest"
import type { Reference } from "@spegel-ts/oci/Reference"
import { Context, Data, type Effect, type Option, type Scope, type Stream } from "effect"
import type { FileHandle } from "node:fs/promises"

/** The store answered that it does not hold `content` (a digest or a name). */
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

/** One change of what is held. `Resync` means that changes were lost: list names and digests again. */
export type ContentChange = Data.TaggedEnum<{
  BlobAdded: { readonly digest: Digest }
  BlobRemoved: { readonly digest: Digest }
  NameAdded: Name
  NameRemoved: { readonly reference: Reference }
  Resync: {}
}>
export const ContentChange = Data.taggedEnum<ContentChange>()

/** A download in progress. Its bytes are not verified yet. */
export interface Ingest {
  /** containerd's namespace of the download; empty if the store has no namespaces. */
  readonly namespace: string
  /** The store's own name for the download, unique within the namespace: `layer-sha256:...`. */
  readonly ref: string
  readonly digest: Digest
  readonly path: string
  /** The size of the complete blob, in bytes. */
  readonly size: number
  readonly written: number
}

/**
 * The state of a download's file. It belongs to the open file and not to its name: another download of the same content,
 * by another client or started later, is another file.
 */
export type IngestState = Data.TaggedEnum<{
  /** It is still being written, or its owner has not decided yet. `modified` is in milliseconds since the epoch. */
  InProgress: { readonly written: number; readonly modified: number }
  /** Its owner has verified it: it is now the blob. */
  Committed: {}
  /** Its owner has deleted it, for whatever reason. It can be read while it is open. */
  Deleted: { readonly written: number }
  /** It is neither in its place nor the blob: it is being renamed at this moment, or somebody has moved it. */
  Moved: {}
}>
export const IngestState = Data.taggedEnum<IngestState>()

/** A download's file, opened for reading. It stays the same file when it is renamed or deleted. */
export interface OpenIngest {
  /** Open while the scope is. */
  readonly handle: FileHandle
  readonly state: Effect.Effect<IngestState, StoreUnavailable>
  /** Its bytes from `start` on, as far as they have been written. */
  readonly chunks: (start: number) => AsyncIterable<Buffer>
}

/**
 * The bytes of a held blob, `[0, size)`. A `File`'s handle is closed with the scope it was opened in. The bytes never
 * change.
 */
export type BlobSource = Data.TaggedEnum<{
  File: { readonly handle: FileHandle; readonly size: number }
  Bytes: { readonly bytes: Uint8Array; readonly size: number }
}>
export const BlobSource = Data.taggedEnum<BlobSource>()

/**
 * The names and blobs that this node holds.
 *
 * Layers: `ContainerdStore.layer` (in `@spegel-ts/containerd`), the content of a containerd; `OciLayout.layer`, an OCI image layout
 * on disk; and `MemoryStore.layer`, for tests. All pass the suite `ContentStoreConformance`.
 */
export class ContentStore extends Context.Service<ContentStore, {
  /** The digest that a name with a tag points to now. */
  readonly resolve: (reference: Reference) => Effect.Effect<Digest, ContentNotFound | StoreUnavailable>
  /** Size of a complete blob in bytes. */
  readonly size: (digest: Digest) => Effect.Effect<number, ContentNotFound | StoreUnavailable>
  /**
   * The media type of a held manifest or index: the type under which the store keeps it (if there are several, that of
   * `name`), otherwise the type that its bytes declare. None if it is not a manifest, or its type is in doubt.
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
   * Changes after the subscription. Begins with `Resync` once the subscription is in place, so a listing after it
   * misses nothing. Never ends by itself.
   */
  readonly changes: Stream.Stream<ContentChange, StoreUnavailable>
  /** Downloads in progress at this moment. */
  readonly inProgress: Stream.Stream<Ingest, StoreUnavailable>
  /** Opens a download's file. Fails with `ContentNotFound` if it has become a blob, or is gone, since it was listed. */
  readonly openIngest: (
    ingest: Ingest
  ) => Effect.Effect<OpenIngest, ContentNotFound | StoreUnavailable, Scope.Scope>
  /**
   * Discards the download that has this namespace and ref now, if the store's owner allows it. Succeeds if there is
   * none. A client that still writes to it fails at its end, so discard only bytes that are known to be wrong.
   */
  readonly discard: (ingest: Pick<Ingest, "namespace" | "ref">) => Effect.Effect<void, StoreUnavailable>
}>()("@spegel-ts/content/ContentStore") {}
