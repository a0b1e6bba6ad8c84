/** SIGHUP, the signal of a closed terminal. Node undoes what `nohup` sets, so a process that is to survive has to handle it. */
import { Effect, type Scope } from "effect"

const onHangUp = (listener: () => void): Effect.Effect<void, never, Scope.Scope> =>
  Effect.asVoid(Effect.acquireRelease(
    Effect.sync(() => process.on("SIGHUP", listener)),
    () => Effect.sync(() => process.off("SIGHUP", listener))
  ))

/** Ignores the signal while the scope is open, as a daemon does. */
export const ignored = onHangUp(() => {})

/** Makes a closed terminal end the command as Ctrl-C does, while the scope is open. */
export const interrupts = onHangUp(() => process.kill(process.pid, "SIGINT"))
