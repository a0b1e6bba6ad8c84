/** Steps of a run on the cluster: each is measured, and passes or fails. */
import { Console, Data, Effect, Exit } from "effect"
import type { Cluster } from "./Cluster.ts"
import * as Upstream from "./Upstream.ts"

/** The cluster does not do what the chart promises. */
export class NotAsPromised extends Data.TaggedError("NotAsPromised")<{ readonly reason: string }> {
  override get message() {
    return this.reason
  }
}

/** Fails with a reason unless the condition holds. */
export const promise = (holds: boolean, reason: string): Effect.Effect<void, NotAsPromised> =>
  holds ? Effect.void : Effect.fail(new NotAsPromised({ reason }))

export interface Row {
  readonly step: string
  readonly seconds: number
  /** Bytes that the registry sent during the step. */
  readonly upstreamBytes: number
  readonly passed: boolean
  /** Figures, or why it failed. */
  readonly detail: string
}

/** Runs a step; prints its row and gives it. */
export const run = <E extends { readonly message: string }, R>(
  cluster: Cluster,
  step: string,
  effect: Effect.Effect<string, E, R>
): Effect.Effect<Row, never, R> =>
  Effect.gen(function*() {
    yield* Console.log(`begin  ${step}`)
    const started = performance.now()
    const [exit, traffic] = yield* cluster.upstream.during(Effect.exit(effect))
    const row: Row = {
      step,
      seconds: (performance.now() - started) / 1000,
      upstreamBytes: Upstream.totalBytes(traffic),
      passed: Exit.isSuccess(exit),
      detail: Exit.isSuccess(exit) ? exit.value : messageOf(exit)
    }
    yield* Console.log(`${row.passed ? "ok    " : "FAILED"} ${row.step}: ${row.seconds.toFixed(1)} s; ${row.detail}`)
    return row
  })

const messageOf = <E extends { readonly message: string }>(exit: Exit.Failure<unknown, E>): string => {
  const [reason] = exit.cause.reasons
  return reason?._tag === "Fail" ? reason.error.message : String(exit.cause)
}

const cell = (text: string) => text.replaceAll("|", "\\|").replaceAll("\n", " ")

/** All rows as a Markdown table. */
export const table = (rows: ReadonlyArray<Row>): string =>
  [
    "| step | seconds | upstream bytes | figures |",
    "| --- | ---: | ---: | --- |",
    ...rows.map(({ detail, passed, seconds, step, upstreamBytes }) =>
      `| ${cell(step)} | ${seconds.toFixed(1)} | ${upstreamBytes} | ${passed ? "" : "FAILED: "}${cell(detail)} |`
    ),
    ""
  ].join("\n")
