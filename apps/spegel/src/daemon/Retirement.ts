/**
 * Between the signal to stop and the close of its port, a mirror says that it is not ready and still answers all requests.
 * Kubernetes needs a moment until it sends no more requests to a pod that stops, and containerd before 2.1 waits up to 30 s for a
 * port that is gone.
 */
import { Duration, Effect } from "effect"

/** How long before the port closes peers hear of it: long enough to reach them, and for lookups that they have begun. */
export const notice = Duration.seconds(1)

export interface RetirementOptions {
  /** How long the port stays open. */
  readonly delay: Duration.Duration
  /** From now on, readiness probes are answered that this mirror is not ready. */
  readonly unready: Effect.Effect<void>
  /**
   * Says goodbye to peers, which then forget what this node holds. It comes late, since the mirror that takes over on this node may
   * not have told them yet that it holds the same.
   */
  readonly leave: Effect.Effect<void>
}

/** Runs the steps in their order; the port may close when it ends. */
export const retire = Effect.fnUntraced(function*({ delay, leave, unready }: RetirementOptions) {
  yield* unready
  if (Duration.isZero(delay)) return yield* leave
  yield* Effect.logInfo("stopping").pipe(Effect.annotateLogs({ portOpenFor: Duration.format(delay) }))
  const told = Duration.min(delay, notice)
  yield* Effect.sleep(Duration.subtract(delay, told))
  yield* leave
  yield* Effect.sleep(told)
})
