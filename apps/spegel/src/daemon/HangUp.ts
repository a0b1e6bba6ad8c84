/** SIGHUP: the terminal was closed. Node undoes what `nohup` has set, so that it has to be handled to be survived. */
import { Effect, type Scope } from "effect"

const onHangUp = (listener: () => void): Effect.Effect<void, never, Scope.Scope> =>
  Effect.asVoid(Effect.acquireRelease(
    Effect.sync(() => process.on("SIGHUP", listener)),
    () => Effect.sync(() => process.off("SIGHUP", listener))
  ))

/** A daemon goes on while the scope is open. */
export const ignored = onHangUp(() => {})

/** While the scope is open, a closed terminal ends the command as Ctrl-C does. */
export const interrupts = onHangUp(() => process.kill(process.pid, "SIGINT"))
