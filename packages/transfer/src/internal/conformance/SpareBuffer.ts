/** Takes the buffer that the next stream of the portable layer would get, to see that nobody else writes to it. */
import { Effect, type Scope } from "effect"
import * as Buffers from "../Buffers.ts"

export const spareBuffer: Effect.Effect<Buffer, never, Scope.Scope> = Effect.acquireRelease(
  Effect.sync(() => Buffers.acquire(Infinity)),
  (buffer) => Effect.sync(() => Buffers.release(buffer))
)
