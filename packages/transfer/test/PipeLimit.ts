/**
 * A program that uses up its user's limit of pipes, then relays bodies by the zero-copy layer, and prints the result as JSON.
 * Without CAP_SYS_RESOURCE and CAP_SYS_ADMIN a new pipe has 8 KiB from then on.
 */
import * as Connections from "@spegel-ts/transfer/internal/conformance/Connections"
import { moving, receiving, sending } from "@spegel-ts/transfer/internal/conformance/Trials"
import { load } from "@spegel-ts/transfer/internal/mover/Libc"
import { Progress } from "@spegel-ts/transfer/Progress"
import { Transfer } from "@spegel-ts/transfer/Transfer"
import { Effect, Fiber } from "effect"

const part = { offset: 9, length: 4 * 1024 * 1024 }
const libc = load()

/** Makes a pipe and asks for 256 KiB; returns the capacity that it got. */
const newPipe = (): number => libc.resizePipe(libc.newPipe()?.[0] ?? -1, 256 * 1024)

const relay = Effect.gen(function*() {
  const { usage } = yield* Transfer
  // The proof has a pipe, which is the first relay's: two at once need another one.
  const clients = [yield* Connections.client, yield* Connections.client]
  let capacity = newPipe()
  for (let pipes = 0; capacity >= 64 * 1024 && pipes < 5000; pipes++) capacity = newPipe()
  const whole = yield* Effect.forEach(clients, (client) =>
    Effect.gen(function*() {
      const receiver = receiving(client, part)
      receiver.pause()
      const source = yield* sending(yield* Connections.peer, part)
      const running = yield* Effect.forkChild(moving(client, source, part.length, new Progress()))
      return { receiver, running }
    }))
  for (const { receiver } of whole) receiver.resume()
  for (const { receiver, running } of whole) {
    yield* Fiber.join(running)
    yield* receiver.all
  }
  const { idlePipes } = yield* usage
  yield* Effect.sync(() =>
    process.stdout.write(JSON.stringify({ capacity, idlePipes, whole: whole.every(({ receiver }) => receiver.whole) }))
  )
}).pipe(Effect.scoped, Effect.provide(Transfer.layerZeroCopy))

void Effect.runPromise(relay)
