/**
 * Where a router finds its first peers. Sources give multiaddrs, with or without a `/p2p/` id; the router dials them,
 * skips itself, and asks again when it has lost everybody.
 */
import { Context, Data, type Effect } from "effect"

/** A source could not be asked; `source` names it, `hint` says what to check. */
export class BootstrapUnavailable extends Data.TaggedError("BootstrapUnavailable")<{
  readonly source: string
  readonly hint: string
  readonly cause?: unknown
}> {
  override get message() {
    return `bootstrap ${this.source}: ${this.hint}`
  }
}

export class Bootstrap extends Context.Service<Bootstrap, {
  /** Multiaddrs such as `/ip4/10.0.0.7/tcp/5001/p2p/12D3Koo...`; may be empty, may contain this node's own. */
  readonly addresses: Effect.Effect<ReadonlyArray<string>, BootstrapUnavailable>
}>()("@spegel-ts/router/Bootstrap") {}
