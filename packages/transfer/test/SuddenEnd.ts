/** A program that ends while its zero-copy layer is open, by an exception or by `process.exit`. */
import { Transfer } from "@spegel-ts/transfer/Transfer"
import { Effect } from "effect"

const [, , how] = process.argv

const end = Effect.gen(function*() {
  yield* Transfer
  setImmediate(() => {
    if (how === "exit") process.exit(3)
    throw new Error("nobody catches it")
  })
  return yield* Effect.never
}).pipe(Effect.provide(Transfer.layerZeroCopy))

void Effect.runPromise(end)
