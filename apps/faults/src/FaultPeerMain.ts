/**
 * The program of a fault peer, alone in a network namespace: the process that started it tells it what to do. Its argument is
 * the name of the device that leads to the others.
 */
import { Effect, Exit, Scope } from "effect"
import { execFileSync } from "node:child_process"
import { readFileSync, writeFileSync } from "node:fs"
import * as FaultPeer from "./FaultPeer.ts"
import type { Command, Reply } from "./FaultPeerProcess.ts"
import * as SettableClock from "./SettableClock.ts"

const [, , device = ""] = process.argv
/** Takes this peer off the network, or back on. It happens in the middle of a body, before anything else is sent. */
const setDevice = (state: "up" | "down") => void execFileSync("ip", ["link", "set", device, state])

let running: { readonly scope: Scope.Closeable; readonly peer: FaultPeer.FaultPeer } | undefined

const stop = Effect.gen(function*() {
  if (running === undefined) return null
  const { peer, scope } = running
  running = undefined
  // A peer that vanished has to be back to say goodbye.
  setDevice("up")
  yield* Scope.close(scope, Exit.void)
  return yield* peer.counts
})

const run = (command: Command): Effect.Effect<unknown> =>
  Effect.gen(function*() {
    switch (command._tag) {
      case "Start": {
        const scope = yield* Scope.make()
        const { clockFile, mirror, peer: other } = command.others
        const happenings = {
          vanish: () => setDevice("down"),
          freezeOther: () => void process.kill(other, "SIGSTOP"),
          changeClock: (millis: number) => {
            writeFileSync(clockFile, String(Number(readFileSync(clockFile, "utf8")) + millis))
            process.kill(mirror, SettableClock.signal)
          }
        }
        const peer = yield* Effect.orDie(Scope.provide(FaultPeer.start({ ...command.options, happenings }), scope))
        running = { scope, peer }
        return null
      }
      case "AwaitProviders":
        return yield* Effect.orDie(running?.peer.untilFound(command.providers) ?? Effect.void)
      case "Counts":
        return yield* running?.peer.counts ?? Effect.succeed(null)
      case "Stop":
        return yield* stop
    }
  })

process.on("message", ({ command, id }: { readonly id: number; readonly command: Command }) => {
  Effect.runPromise(run(command)).then(
    (result) => process.send?.({ id, result } satisfies Reply),
    (error: unknown) => process.send?.({ id, failure: String(error) } satisfies Reply)
  )
})
process.on("disconnect", () => process.exit(0))
