/** What an elector needs of the server that keeps its Lease. One Lease, optimistic concurrency by resourceVersion. */
import { Data, type Effect, type Option, type Scope, type Stream } from "effect"
import type { LeaseUnavailable } from "../../LeaderElection.ts"
import type { Json, Lease } from "./Lease.ts"

/** The Lease is not what was observed: another wrote it, created it or deleted it. */
export class LeaseConflict extends Data.TaggedError("LeaseConflict") {}

/** The server no longer knows what happened since that resourceVersion (410 Gone): list again. */
export class WatchExpired extends Data.TaggedError("WatchExpired") {}

export type LeaseEvent =
  | { readonly _tag: "Changed"; readonly lease: Lease }
  | { readonly _tag: "Deleted"; readonly resourceVersion: string }
  | { readonly _tag: "Bookmark"; readonly resourceVersion: string }

/** Each request ends within a deadline of its own; only a watch, once open, may stay silent. */
export interface LeaseApi {
  /** Namespace and name, for messages. */
  readonly label: string
  readonly name: string
  /** The Lease if there is one, and the version from which to watch. */
  readonly list: Effect.Effect<
    { readonly lease: Option.Option<Lease>; readonly resourceVersion: string },
    LeaseUnavailable
  >
  readonly create: (json: Json) => Effect.Effect<Lease, LeaseConflict | LeaseUnavailable>
  /** Writes a Lease whose `metadata.resourceVersion` is the one observed. */
  readonly update: (json: Json) => Effect.Effect<Lease, LeaseConflict | LeaseUnavailable>
  /** Opens a watch, which the server ends after some minutes; resume from the last version seen. */
  readonly watch: (resourceVersion: string) => Effect.Effect<
    Stream.Stream<LeaseEvent, WatchExpired | LeaseUnavailable>,
    WatchExpired | LeaseUnavailable,
    Scope.Scope
  >
}
