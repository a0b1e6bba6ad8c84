/** The registry that all nodes share, behind a link of limited speed; its image is another one in each run. */
import * as LayoutRegistry from "@spegel-ts/testing/registry/LayoutRegistry"
import { temporary } from "@spegel-ts/testing/TemporaryDirectory"
import { Effect } from "effect"
import * as Host from "./Host.ts"

const port = 5000

/** `bytesPerSecond` is the speed of its link; it sends the first byte of a blob after so many milliseconds. */
export const start = Effect.fnUntraced(function*(bytesPerSecond: number, firstByteMillis: number) {
  const { address, namespace } = yield* Host.make(250, { up: bytesPerSecond, down: bytesPerSecond })
  const layout = yield* temporary
  return yield* LayoutRegistry.start({ address, namespace, port, layout, shape: { firstByteMillis } })
})

export type HerdUpstream = Effect.Success<ReturnType<typeof start>>
