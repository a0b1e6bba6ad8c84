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

/** A download under way. Its bytes are not verified yet. `size` is the total that it will have, in bytes. */
export interface Ingest {
  readonly digest: Digest
  readonly path: string
  readonly size: number
  readonly written: number
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
  /**
   * Throws away what was downloaded of a digest, where the store's owner lets others do that; what is complete stays.
   * A download that still runs fails at its end.
   */
  readonly discard: (digest: Digest) => Effect.Effect<void, StoreUnavailable>
}>()("@spegel-ts/content/ContentStore") {}
