/**
 * What a mirror does between the signal to stop and the close of its port: it says that it is not ready, and still answers all
 * requests. Kubernetes needs a moment until it sends no more requests to a pod that stops, and containerd before 2.1 waits up to
 * 30 s for a port that is gone.
 */
import { Duration, Effect } from "effect"

/** How long before the port closes peers are told: long enough to reach them, and to end what they have begun to look up. */
export const notice = Duration.seconds(1)

export interface RetirementOptions {
  /** How long the port stays open. */
  readonly delay: Duration.Duration
  /** Says to whoever asks that this mirror is not ready. */
  readonly unready: Effect.Effect<void>
  /**
   * Tells peers goodbye: they forget what this node holds. Not at once, since the mirror that takes over on this node may not have
   * told them yet that it holds the same.
   */
  readonly leave: Effect.Effect<void>
}

/** Ends when the port is to be closed. */
export const retire = Effect.fnUntraced(function*({ delay, leave, unready }: RetirementOptions) {
  yield* unready
  if (Duration.isZero(delay)) return yield* leave
  yield* Effect.logInfo("stopping").pipe(Effect.annotateLogs({ portOpenFor: Duration.format(delay) }))
  const told = Duration.min(delay, notice)
  yield* Effect.sleep(Duration.subtract(delay, told))
  yield* leave
  yield* Effect.sleep(told)
})
