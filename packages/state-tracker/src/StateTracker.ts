/**
 * Keeps what is advertised equal to what is held: everything on start, then each change as it happens, withdrawn when
 * it is deleted, compared again as a whole before records could expire.
 */
import { Context, type Effect } from "effect"

/** What is advertised now, by registry host. Digests belong to no registry. */
export interface Snapshot {
  /** Names (tags) advertised, by registry host. */
  readonly tags: ReadonlyMap<string, number>
  /** Images whose manifest is held and that a name of the registry points to, by registry host. */
  readonly images: ReadonlyMap<string, number>
  /** Digests advertised. */
  readonly digests: number
}

export class StateTracker extends Context.Service<StateTracker, {
  /** Runs until interrupted; waits for the store and the router when they are away, and never fails. */
  readonly run: Effect.Effect<never>
  readonly snapshot: Effect.Effect<Snapshot>
}>()("@spegel-ts/state-tracker/StateTracker") {}
