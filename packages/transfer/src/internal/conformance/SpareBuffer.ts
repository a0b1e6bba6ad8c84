/** The next buffer that a stream of the portable layer gets, to see that nobody else writes to it. */
import { Effect, type Scope } from "effect"
import * as Buffers from "../Buffers.ts"

export const spareBuffer: Effect.Effect<Buffer, never, Scope.Scope> = Effect.acquireRelease(
  Effect.sync(() => Buffers.acquire(Infinity)),
  (buffer) => Effect.sync(() => Buffers.release(buffer))
)
