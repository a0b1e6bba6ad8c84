import { Console, Duration, Effect, Option, Schedule, Schema } from "effect"
import { Command } from "effect/cli"
import { withBrackets } from "../cli/NodeUrl.ts"
import * as HttpGet from "../cli/report/HttpGet.ts"
import { flagsOf, many, one } from "../cli/Setting.ts"
import { textSchema } from "../cli/TextSchema.ts"
import { SettingsInvalid } from "../settings/SettingsInvalid.ts"
import { positiveDuration } from "../settings/SharedSettings.ts"

export const probeSettings = {
  url: many({
    description: "URL that must answer, such as http://10.0.0.7:5000/readyz",
    schema: textSchema<string>({
      expected: "an http or https URL",
      parse: (text) =>
        Option.filter(Option.some(withBrackets(text)), (url) => /^https?:$/.test(URL.parse(url)?.protocol ?? "")),
      print: (url) => url
    }),
    metavar: "URL"
  }),
  show: many({
    description: "Print each line of the answers that begins with this text, such as a metric's name",
    schema: Schema.String,
    metavar: "TEXT"
  }),
  timeout: one({
    ...positiveDuration,
    description: "How long to keep asking",
    fallback: "10s"
  })
}

const tryPause = Duration.millis(100)
/** How long one try may take: an address that swallows what it is sent is asked again. */
const tryTimeout = Duration.seconds(5)

const ask = (url: string) =>
  HttpGet.get(url, { isGood: (status) => status >= 200 && status < 300, timeout: tryTimeout })

export const probe = Command.make(
  "probe",
  flagsOf(probeSettings),
  Effect.fnUntraced(function*({ show, timeout, url: urls }) {
    if (urls.length === 0) return yield* new SettingsInvalid({ flag: "url", reason: "is needed" })
    yield* Effect.forEach(urls, (url) => {
      let last = new HttpGet.NoAnswer({ url, reason: `no answer within ${Duration.format(timeout)}` })
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
  Command.withDescription("Wait until URLs answer: tells Kubernetes and helm test whether a mirror is ready"),
  Command.withExamples([
    {
      command: "spegel probe --url=http://127.0.0.1:5000/readyz",
      description: "Wait until this node's mirror is ready"
    },
    {
      command: "spegel probe --url=http://127.0.0.1:9090/metrics --show=spegel_router_peers",
      description: "How many peers it knows"
    }
  ])
)
