/**
 * A flipped byte at a holder costs one failed pull. Every pair of a version, a client and a place is tried; with
 * `SPEGEL_FLIPS=all` every combination is, with layers of 16 MiB and of 1 GiB.
 */
import { assert, describe, it } from "@effect/vitest"
import * as ContainerdDaemon from "@spegel-ts/testing/containerd/ContainerdDaemon"
import * as ContainerdPackages from "@spegel-ts/testing/containerd/ContainerdPackages"
import { Effect } from "effect"
import * as FlippedByte from "./FlippedByte.ts"

const missing = ContainerdDaemon.missingPrerequisite("docker-registry")
const isWhole = process.env["SPEGEL_FLIPS"] === "all"

type Variant = FlippedByte.Variant
type Result = Effect.Success<ReturnType<typeof FlippedByte.trial>>

const places = ["first KiB", "middle", "last KiB"] as const
const clients = ["ctr", "CRI"] as const
/** How soon a person, a script and the kubelet retry. */
const atOnce = [50, 1000, 10_000]
const later = [1000, 10_000]

const plain = (variant: Pick<Variant, "version" | "client" | "place"> & Partial<Variant>): Variant => ({
  verify: "commit",
  mebibytes: 16,
  disturbance: "none",
  company: "upstream",
  retries: atOnce,
  ...variant
})

const pairs: ReadonlyArray<Variant> = [
  plain({ version: "1.6", client: "ctr", place: "first KiB", company: "good peer" }),
  plain({ version: "1.6", client: "CRI", place: "middle", retries: later }),
  plain({ version: "1.6", client: "CRI", place: "last KiB" }),
  plain({ version: "1.7", client: "CRI", place: "first KiB", company: "good peer", retries: later }),
  plain({ version: "1.7", client: "ctr", place: "middle" }),
  plain({ version: "1.7", client: "ctr", place: "last KiB", company: "good peer" }),
  plain({ version: "2.1", client: "CRI", place: "first KiB" }),
  plain({ version: "2.1", client: "ctr", place: "middle", company: "good peer", retries: later }),
  plain({ version: "2.1", client: "CRI", place: "last KiB", company: "good peer" })
]

const all: ReadonlyArray<Variant> = ContainerdPackages.versions.flatMap((version) =>
  clients.flatMap((client) =>
    places.flatMap((place) => [
      ...[atOnce, later].flatMap((retries) =>
        (["upstream", "good peer"] as const).map((company) => plain({ version, client, place, retries, company }))
      ),
      // Each takes two minutes.
      plain({ version, client, place, mebibytes: 1024, retries: place === "middle" ? atOnce : later })
    ])
  )
)

/** Long enough to be disturbed. */
const mebibytes = 256
const disturbed: ReadonlyArray<Variant> = [
  plain({ version: "2.1", client: "CRI", place: "middle", disturbance: "in parts", mebibytes }),
  plain({ version: "1.6", client: "CRI", place: "middle", disturbance: "two pulls" }),
  plain({ version: "1.7", client: "ctr", place: "last KiB", disturbance: "two pulls" }),
  plain({ version: "2.1", client: "CRI", place: "first KiB", disturbance: "two pulls" }),
  plain({ version: "1.6", client: "ctr", place: "first KiB", disturbance: "client killed", mebibytes }),
  plain({ version: "2.1", client: "ctr", place: "first KiB", disturbance: "client killed", mebibytes }),
  plain({ version: "1.7", client: "CRI", place: "first KiB", disturbance: "containerd killed", mebibytes })
]

const allDisturbed: ReadonlyArray<Variant> = ContainerdPackages.versions.flatMap((version) =>
  clients.flatMap((client) =>
    places.flatMap((place) =>
      (["two pulls", "client killed", "containerd killed", "in parts"] as const)
        .filter((disturbance) => disturbance !== "in parts" || version === "2.1")
        .map((disturbance) => plain({ version, client, place, disturbance, mebibytes }))
    )
  )
)

const streamed: ReadonlyArray<Variant> = [
  plain({ verify: "stream", version: "1.6", client: "ctr", place: "first KiB" }),
  plain({ verify: "stream", version: "1.7", client: "CRI", place: "middle", disturbance: "two pulls" }),
  plain({ verify: "stream", version: "2.1", client: "CRI", place: "last KiB", company: "good peer" })
]

/**
 * From when on a retry succeeds, in milliseconds after the first failure. One that comes at once keeps the wrong download alive;
 * where that is large, containerd and the mirror then take a second or more to hash it.
 */
const surelyMillis = ({ mebibytes, tried, verify }: FlippedByte.Row) =>
  verify === "stream" ? 50 : mebibytes > 16 && tried.some(({ millis }) => millis < 1000) ? 10_000 : 1000

const maxTries = 5

const faultsOf = ({ log, row }: Result): ReadonlyArray<string> => {
  const failed = row.tried.filter(({ millis, succeeded }) => millis >= surelyMillis(row) && !succeeded)
  const faults = [
    ...(row.first === "ok" ? ["nothing was wrong with the first pull"] : []),
    ...failed.map(({ millis, reason }) => `the retry after ${millis} ms failed: ${reason}`),
    ...(row.poisoned > 0 ? ["a wrong download was left"] : []),
    ...(row.corruptions === 1 ? [] : [`${row.corruptions} bodies were counted as wrong`]),
    ...(row.verify === "stream" && row.discarded !== 1
      ? ["what was found to be wrong as it streamed was not discarded"]
      : []),
    ...(row.holderWithdrew ? [] : ["the holder gives it to others still"]),
    ...(row.company === "good peer" && row.upstreamBytes > 0 ? ["upstream was asked where a peer holds it"] : [])
  ]
  return faults.length === 0 ? [] : [`${FlippedByte.table([row])}\n${faults.join("; ")}\n${log}`]
}

const tryAll = (variants: ReadonlyArray<Variant>) =>
  Effect.gen(function*() {
    const cluster = yield* FlippedByte.cluster
    const results: Array<Result> = []
    yield* Effect.forEach(
      variants,
      (variant) =>
        FlippedByte.trial(cluster, variant).pipe(
          // If the right one of two peers was known first, nothing went wrong.
          Effect.repeat({
            until: ({ row }) => row.first === "fails" || variant.company === "upstream",
            times: maxTries
          }),
          Effect.map((result) => void results.push(result))
        ),
      { discard: true }
    ).pipe(
      Effect.ensuring(
        Effect.sync(() => process.stdout.write(`\n${FlippedByte.table(results.map(({ row }) => row))}\n`))
      )
    )
    assert.deepStrictEqual(results.flatMap(faultsOf), [])
  })

describe.skipIf(missing !== undefined)(
  `a flipped byte at a holder${missing === undefined ? "" : ` (skipped: ${missing})`}`,
  () => {
    it.live(
      "costs one failed pull, whoever pulls and wherever it is",
      () => tryAll(isWhole ? all : pairs),
      7_200_000
    )

    it.live(
      "costs no more where pulls are killed, run side by side, or fetch in parts",
      () => tryAll(isWhole ? allDisturbed : disturbed),
      7_200_000
    )

    it.live(
      "costs one failed pull and no second, however soon, where it is hashed as it streams",
      () => tryAll(streamed),
      600_000
    )
  }
)
