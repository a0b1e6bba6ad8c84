/** Starts a node with a thousand bootstrap peers, of which one is alive. Prints the outcome as JSON. */
import { Effect, Schedule } from "effect"
import { startRouter } from "../StartRouter.ts"

const [alive = "", seeker = "", dead = ""] = process.argv.slice(2)
const port = 5001

const program = Effect.gen(function*() {
  yield* startRouter(alive, port)
  const addresses = Array.from({ length: 999 }, (_, index) => `${dead}.${2 + (index >> 8)}.${index & 255}:${port}`)
  const begun = performance.now()
  const cpu = process.cpuUsage()
  const router = yield* startRouter(seeker, port, { peers: [...addresses, `${alive}:${port}`] })
  const elapsed = () => Math.round(performance.now() - begun)
  yield* router.peers.pipe(
    Effect.repeat({ schedule: Schedule.spaced("10 millis"), until: ({ length }) => length > 0 }),
    Effect.timeoutOption("30 seconds")
  )
  const joinedMillis = elapsed()
  yield* Effect.repeat(router.ready, { schedule: Schedule.spaced("10 millis"), until: (ready) => ready })
  const { system, user } = process.cpuUsage(cpu)
  const standing = yield* router.standing
  process.stdout.write(`${
    JSON.stringify({
      joinedMillis,
      readyMillis: elapsed(),
      standing: standing._tag,
      cpuMillis: Math.round((system + user) / 1000)
    })
  }\n`)
  process.exit(0)
})

Effect.runFork(Effect.scoped(program))
