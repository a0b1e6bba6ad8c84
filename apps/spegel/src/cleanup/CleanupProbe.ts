/**
 * Waits until the cleanup pods of all nodes answer, as Go Spegel does. The name of a headless service gives their addresses, so
 * nodes that are down are not waited for.
 */
import { Data, Duration, Effect, Option, Schedule } from "effect"
import { lookup } from "node:dns/promises"
import { isIPv6 } from "node:net"

/** Not every node answered in time. */
export class CleanupPending extends Data.TaggedError("CleanupPending")<{ readonly reason: string }> {
  override get message() {
    return this.reason
  }
}

const timeout = Duration.seconds(1)
const concurrency = 10

const reasonOf = (cause: unknown) => cause instanceof Error ? cause.message : String(cause)

const probe = (host: string, port: number) => {
  const url = `http://${isIPv6(host) ? `[${host}]` : host}:${port}/healthz`
  return Effect.tryPromise({
    try: async (signal) => {
      const response = await fetch(url, { signal, redirect: "error" })
      await response.body?.cancel()
      return response.status
    },
    catch: (cause) => new CleanupPending({ reason: `${url}: ${reasonOf(cause)}` })
  }).pipe(
    Effect.timeoutOrElse({
      duration: timeout,
      orElse: () => Effect.fail(new CleanupPending({ reason: `${url}: no answer within ${Duration.format(timeout)}` }))
    }),
    Effect.filterOrFail(
      (status) => status === 200,
      (status) => new CleanupPending({ reason: `${url} answered ${status}` })
    )
  )
}

/** Asks all addresses of `host` once, and gives them if all answered. */
const round = Effect.fnUntraced(function*(host: string, port: number) {
  const addresses = yield* Effect.tryPromise({
    try: () => lookup(host, { all: true }),
    catch: (cause) => new CleanupPending({ reason: `looking up ${host}: ${reasonOf(cause)}` })
  })
  const hosts = [...new Set(addresses.map(({ address }) => address))].toSorted()
  yield* Effect.forEach(hosts, (address) => probe(address, port), { concurrency, discard: true })
  return hosts.join(" ")
})

/**
 * Succeeds after `threshold` rounds in a row, `period` apart, in which the same addresses all answered: a node that comes
 * late is waited for too. Fails with `CleanupPending` where that does not happen within `timeout`.
 */
export const wait = Effect.fn("CleanupProbe.wait")(function*(options: {
  readonly host: string
  readonly port: number
  readonly threshold: number
  readonly period: Duration.Duration
  readonly timeout: Option.Option<Duration.Duration>
}) {
  const { host, period, port, threshold, timeout } = options
  let passed = 0
  let last = ""
  let reason = ""
  yield* round(host, port).pipe(
    Effect.flatMap((addresses) => {
      passed = addresses === last ? passed + 1 : 1
      last = addresses
      return Effect.logInfo("all have answered").pipe(Effect.annotateLogs({ addresses, passed, threshold }))
    }),
    Effect.catch((error) => {
      passed = 0
      reason = error.message
      return Effect.logInfo(`waiting: ${reason}`)
    }),
    Effect.repeat({ schedule: Schedule.spaced(period), until: () => passed >= threshold }),
    Effect.timeoutOrElse({
      duration: Option.getOrElse(timeout, () => Duration.infinity),
      orElse: () => Effect.fail(new CleanupPending({ reason: `not all nodes were restored in time: ${reason}` }))
    })
  )
})
