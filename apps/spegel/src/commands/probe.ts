import { Console, Data, Duration, Effect, Option, Schedule } from "effect"
import { Command } from "effect/cli"
import { many, one } from "../cli/Flags.ts"
import { PositiveGoDuration } from "../cli/GoDuration.ts"
import { withBrackets } from "../cli/NodeUrl.ts"
import { textSchema } from "../cli/TextSchema.ts"
import { SettingsInvalid } from "./shared.ts"

/** An address did not answer as one that works does. */
export class NoAnswer extends Data.TaggedError("NoAnswer")<{ readonly url: string; readonly reason: string }> {
  override get message() {
    return `${this.url}: ${this.reason}`
  }
}

const flags = {
  url: many({
    name: "url",
    description: "What has to answer, such as http://10.0.0.7:5000/readyz",
    schema: textSchema<string>({
      expected: "an http or https URL",
      parse: (text) =>
        Option.filter(Option.some(withBrackets(text)), (url) => /^https?:$/.test(URL.parse(url)?.protocol ?? "")),
      print: (url) => url
    }),
    metavar: "URL"
  }),
  show: many({
    name: "show",
    description: "Beginning of lines of the answers to print, such as a metric's name",
    schema: textSchema<string>({ expected: "a text", parse: Option.some, print: (text) => text }),
    metavar: "TEXT"
  }),
  timeout: one({
    name: "timeout",
    description: "How long to ask again and again",
    schema: PositiveGoDuration,
    fallback: "10s",
    metavar: "DURATION"
  })
}

const tryPause = Duration.millis(100)
/** Of one try: an address that swallows what it is sent is asked again. */
const tryTimeout = Duration.seconds(5)

const reasonOf = (cause: unknown): string => {
  const { cause: inner, message } = cause as Error
  return inner instanceof Error ? `${message}: ${inner.message}` : message
}

const ask = (url: string) =>
  Effect.tryPromise({
    try: async (signal) => {
      const response = await fetch(url, { signal, redirect: "error" })
      return { status: response.status, body: await response.text() }
    },
    catch: (cause) => new NoAnswer({ url, reason: reasonOf(cause) })
  }).pipe(
    Effect.timeoutOrElse({
      duration: tryTimeout,
      orElse: () => Effect.fail(new NoAnswer({ url, reason: `no answer within ${Duration.format(tryTimeout)}` }))
    }),
    Effect.filterOrFail(
      ({ status }) => status >= 200 && status < 300,
      ({ body, status }) => new NoAnswer({ url, reason: `answered ${status}: ${body.slice(0, 300)}` })
    )
  )

export const probe = Command.make(
  "probe",
  flags,
  Effect.fnUntraced(function*({ show, timeout, url: urls }) {
    if (urls.length === 0) return yield* new SettingsInvalid({ flag: "url", reason: "is needed" })
    yield* Effect.forEach(urls, (url) => {
      let last = new NoAnswer({ url, reason: `no answer within ${Duration.format(timeout)}` })
      return ask(url).pipe(
        Effect.tapError((error) => Effect.sync(() => last = error)),
        Effect.retry(Schedule.spaced(tryPause)),
        Effect.timeoutOrElse({ duration: timeout, orElse: () => Effect.fail(last) }),
        Effect.tap(({ body, status }) =>
          Effect.forEach(
            [`${url}: ${status}`, ...body.split("\n").filter((line) => show.some((start) => line.startsWith(start)))],
            (line) => Console.log(line)
          )
        )
      )
    }, { concurrency: "unbounded", discard: true })
  })
).pipe(
  Command.withDescription("Wait until addresses answer: whether a mirror is ready, for Kubernetes and for helm test")
)
