/** The server that keeps the one Lease of an elector, with optimistic concurrency by `resourceVersion`. */
import { Data, type Effect, type Option, type Scope, type Stream } from "effect"
import type { LeaseUnavailable } from "../../LeaderElection.ts"
import type { Json, Lease } from "./Lease.ts"

/** The Lease is not what was observed: another candidate wrote, created or deleted it. Read it again. */
export class LeaseConflict extends Data.TaggedError("LeaseConflict") {}

/** The server no longer knows what happened since that `resourceVersion` (410 Gone). List again. */
export class WatchExpired extends Data.TaggedError("WatchExpired") {}

/** One event of a watch. A bookmark only moves the version from which to resume. */
export type LeaseEvent =
  | { readonly _tag: "Changed"; readonly lease: Lease }
  | { readonly _tag: "Deleted"; readonly resourceVersion: string }
  | { readonly _tag: "Bookmark"; readonly resourceVersion: string }

/** Each request has a deadline. Only a watch, once it is open, may stay silent. */
export interface LeaseApi {
  /** Namespace and name, for log lines. */
  readonly label: string
  readonly name: string
  /** The Lease if there is one, and the version from which to watch. */
  readonly list: Effect.Effect<
    { readonly lease: Option.Option<Lease>; readonly resourceVersion: string },
    LeaseUnavailable
  >
  /** Creates the Lease. */
  readonly create: (json: Json) => Effect.Effect<Lease, LeaseConflict | LeaseUnavailable>
  /** Replaces the Lease, if `metadata.resourceVersion` in `json` is still its version. */
  readonly update: (json: Json) => Effect.Effect<Lease, LeaseConflict | LeaseUnavailable>
  /** Opens a watch from that version on. The server ends it after some minutes; resume from the last version seen. */
  readonly watch: (resourceVersion: string) => Effect.Effect<
    Stream.Stream<LeaseEvent, WatchExpired | LeaseUnavailable>,
    WatchExpired | LeaseUnavailable,
    Scope.Scope
  >
}
