/** Gets a URL for a command, and says why there was no answer. */
import { Data, Duration, Effect } from "effect"

/** There was no answer, or a redirection. */
export class NoAnswer extends Data.TaggedError("NoAnswer")<{ readonly url: string; readonly reason: string }> {
  override get message() {
    return `${this.url}: ${this.reason}`
  }
}

const reasonOf = (cause: unknown): string => {
  const { cause: inner, message } = cause as Error
  return inner instanceof Error ? `${message}: ${inner.message}` : message
}

export interface HttpAnswer {
  readonly status: number
  readonly body: string
}

/** An answer with a status that `isGood`; another one fails, with the beginning of its body. */
export const get = (
  url: string,
  { isGood, timeout }: { readonly isGood: (status: number) => boolean; readonly timeout: Duration.Duration }
): Effect.Effect<HttpAnswer, NoAnswer> =>
  Effect.tryPromise({
    try: async (signal) => {
      const response = await fetch(url, { signal, redirect: "error" })
      return { status: response.status, body: await response.text() }
    },
    catch: (cause) => new NoAnswer({ url, reason: reasonOf(cause) })
  }).pipe(
    Effect.timeoutOrElse({
      duration: timeout,
      orElse: () => Effect.fail(new NoAnswer({ url, reason: `no answer within ${Duration.format(timeout)}` }))
    }),
    Effect.filterOrFail(
      ({ status }) => isGood(status),
      ({ body, status }) => new NoAnswer({ url, reason: `answered ${status}: ${body.slice(0, 300)}` })
    )
  )
