/** What the spans of a request cost where nobody records them. */
import * as RequestSpans from "@spegel-ts/registry/internal/observe/RequestSpans"
import { Effect, References } from "effect"
import { IncomingMessage, ServerResponse } from "node:http"
import { Socket } from "node:net"
import { percentile } from "../Statistics.ts"

const requests = 100_000
const rounds = 7

const request = new IncomingMessage(new Socket())
const response = new ServerResponse(request)
const answer = { _tag: "Served", status: 200, bytes: 1024, source: { _tag: "Local" } } as const
const event = {
  time: 0,
  method: "GET",
  mirrored: false,
  registry: "registry.example",
  content: `sha256:${"0".repeat(64)}`,
  range: undefined,
  source: "local",
  status: 200,
  bytes: 1024,
  firstByteMillis: 0,
  millis: 0,
  peersSeen: 0,
  peersFailed: 0,
  attempts: [],
  reason: ""
} as const

const step = Effect.void
/** The steps of a request for own content. */
const bare = Effect.andThen(Effect.andThen(step, step), step)
const spanned = RequestSpans.request(
  Effect.andThen(
    Effect.andThen(RequestSpans.parse(step), RequestSpans.localLookup(event.content)(step)),
    Effect.andThen(
      Effect.andThen(step, RequestSpans.answered(answer, request, response)),
      RequestSpans.pulled(event)
    )
  ),
  request
)

const cpuMicros = async (effect: Effect.Effect<void>): Promise<number> => {
  const before = process.cpuUsage()
  await Effect.runPromise(
    Effect.provideService(Effect.repeat(effect, { times: requests - 1 }), References.TracerEnabled, false)
  )
  const { system, user } = process.cpuUsage(before)
  return (user + system) / requests
}

/** CPU microseconds a request, the median of what a few rounds show. */
export const unrecorded = async (): Promise<number> => {
  const differences: Array<number> = []
  for (let round = 0; round < rounds; round++) {
    const without = await cpuMicros(bare)
    differences.push(await cpuMicros(spanned) - without)
  }
  return Math.max(0, percentile(differences, 0.5))
}
