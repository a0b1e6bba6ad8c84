/**
 * Pulls by real daemons from every starting state: before, after `configuration`, and after `cleanup`. A pull that worked
 * before works after; the mirror is asked wherever it can be configured; everything comes back to the byte.
 *
 * By default each state meets each version, and each pair of the other circumstances is met with each of both; with
 * `SPEGEL_STATES=all` every combination is.
 */
import { assert, describe, it } from "@effect/vitest"
import * as MirrorConfiguration from "@spegel-ts/containerd/MirrorConfiguration"
import * as ContainerdDaemon from "@spegel-ts/testing/containerd/ContainerdDaemon"
import * as ContainerdPackages from "@spegel-ts/testing/containerd/ContainerdPackages"
import * as CriClient from "@spegel-ts/testing/containerd/CriClient"
import * as FakeRegistry from "@spegel-ts/testing/containerd/FakeRegistry"
import * as StartingStates from "@spegel-ts/testing/containerd/StartingStates"
import { freePort } from "@spegel-ts/testing/network/FreePort"
import { Console, Effect, Option, Redacted } from "effect"
import { mkdtempSync, readdirSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

const missing = ContainerdDaemon.missingPrerequisite()
const isWhole = process.env["SPEGEL_STATES"] === "all"

/** In shape like the tokens of nodes. */
const token = Redacted.make(`v1.0123456789abcdef.node-1.${"x".repeat(43)}`)

/** How the registry is reached without a file. */
const reaches = ["by itself", "through the file"] as const
const tagResolutions = ["mirror", "upstream-first", "never"] as const

interface Round {
  readonly state: StartingStates.StartingState
  /** `through the file`: nobody listens where the registry's own name leads. */
  readonly reach: typeof reaches[number]
  readonly tagResolution: typeof tagResolutions[number]
}

/** Only a file of one registry can name its upstream. */
const tagsOf = (state: StartingStates.StartingState) =>
  state.only === true ? tagResolutions : tagResolutions.filter((tags) => tags !== "upstream-first")

const roundsOf = (version: number): ReadonlyArray<Round> =>
  StartingStates.states.flatMap((state, index) => {
    const turn = index + version
    const all = reaches.flatMap((reach) =>
      tagsOf(state).map((tagResolution): Round => ({ state, reach, tagResolution }))
    )
    const tags = tagsOf(state)[turn % tagsOf(state).length]
    return all.filter(({ reach, tagResolution }) =>
      isWhole || reach === reaches[Math.floor(turn / 2) % reaches.length] && tagResolution === tags
    )
  })

const temporary = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "states-"))),
  (directory) => Effect.sync(() => rmSync(directory, { recursive: true, force: true }))
)

interface Outcome extends Round {
  readonly before: string
  readonly after: string
  readonly cleaned: string
  readonly asked: number
  /** Whether each request to the mirror had the token, or none where there is none. */
  readonly hasToken: boolean
  readonly isRestored: boolean
}

const worked = "ok"

const isRight = ({ after, asked, before, cleaned, hasToken, isRestored, state, tagResolution }: Outcome): boolean => {
  const mustAsk = state.isMirrored !== false && (after === worked || tagResolution !== "never")
  return isRestored && hasToken && (cleaned === worked) === (before === worked) &&
    (after === worked || before !== worked) &&
    (asked > 0 || !mustAsk)
}

const short = (outcome: string) => outcome === worked ? worked : "fails"

const row = (outcome: Outcome) =>
  [
    isRight(outcome) ? "right" : "WRONG",
    short(outcome.before).padEnd(6),
    short(outcome.after).padEnd(6),
    short(outcome.cleaned).padEnd(6),
    String(outcome.asked).padStart(5),
    outcome.reach.padEnd(16),
    outcome.tagResolution.padEnd(14),
    outcome.state.name
  ].join("  ")

describe.skipIf(missing !== undefined).each(ContainerdPackages.versions)(
  `starting states of hosts.toml, containerd %s${missing === undefined ? "" : ` (skipped: ${missing})`}`,
  (version) => {
    it.live("a pull works as before, asks the mirror, and the files come back", () =>
      Effect.gen(function*() {
        const programs = yield* ContainerdPackages.fetch(version)
        const directory = yield* temporary
        const configPath = join(directory, "certs.d")
        const daemon = yield* ContainerdDaemon.start({ configPath, programs })
        const upstream = yield* FakeRegistry.start()
        const mirror = yield* FakeRegistry.start({ isEmpty: true })
        const nobody = yield* freePort
        let images = 0
        // A new image each time: of one that is there nothing is asked.
        const pull = (registry: string) =>
          CriClient.pullImage(daemon.socket, `${registry}/team/app:v${images++}`).pipe(
            Effect.as(worked),
            Effect.catch(({ message }) => Effect.succeed(message))
          )

        const outcomes = yield* Effect.forEach(roundsOf(ContainerdPackages.versions.indexOf(version)), (round) =>
          Effect.gen(function*() {
            const { reach, state, tagResolution } = round
            const registry = reach === "by itself" ? upstream.host : `127.0.0.1:${nobody}`
            for (const name of readdirSync(directory)) {
              rmSync(join(directory, name), { recursive: true })
            }
            state.make(directory, registry, upstream.url)
            const snapshot = StartingStates.snapshot(directory)
            const before = yield* pull(registry)
            state.before?.(directory, registry, upstream.url)
            mirror.requests.length = mirror.authorizations.length = 0
            yield* MirrorConfiguration.write({
              configPath,
              mirroredRegistries: state.only === true ? [registry] : [],
              mirrorTargets: [mirror.url],
              tagResolution,
              // Without the option mirrors of others are given up.
              prependExisting: reach === "through the file",
              basicAuth: Option.none(),
              token: reach === "through the file" ? token : undefined
            }).pipe(Effect.catch(({ message }) =>
              Console.log(`${state.name}: ${message}`)
            ))
            const after = yield* pull(registry)
            const asked = mirror.requests.length
            const sent = reach === "through the file" ? `Bearer ${Redacted.value(token)}` : ""
            const hasToken = mirror.authorizations.every((authorization) => authorization === sent)
            yield* MirrorConfiguration.remove(configPath)
            const isRestored = JSON.stringify(StartingStates.snapshot(directory)) === JSON.stringify(snapshot)
            return { ...round, before, after, asked, hasToken, isRestored, cleaned: yield* pull(registry) }
          }))

        yield* Console.log(
          [
            `containerd ${version}:`,
            "result before  after  undone asked  registry          tags            state",
            ...outcomes.map(row)
          ]
            .join("\n")
        )
        const wrong = outcomes.filter((outcome) => !isRight(outcome))
        assert.deepStrictEqual(wrong, [])
        assert.isAbove(outcomes.filter(({ asked, reach }) => asked > 0 && reach === "through the file").length, 20)
        // The check of pulls that worked before had enough of them.
        for (const reach of reaches) {
          const workedBefore = outcomes.filter((outcome) => outcome.reach === reach && outcome.before === worked)
          assert.isAbove(workedBefore.length, outcomes.length / 8, reach)
        }
      }), 900_000)

    it.live("a mirror at an IPv6 address is asked first, and pulls work", () =>
      Effect.gen(function*() {
        const programs = yield* ContainerdPackages.fetch(version)
        const configPath = join(yield* temporary, "certs.d")
        const daemon = yield* ContainerdDaemon.start({ configPath, programs })
        const upstream = yield* FakeRegistry.start()
        const mirror = yield* FakeRegistry.start({ isEmpty: true, address: "::1" })
        const second = yield* FakeRegistry.start({ isEmpty: true })
        for (const [index, tagResolution] of tagResolutions.entries()) {
          for (const requests of [mirror.requests, second.requests, upstream.requests]) requests.length = 0
          yield* MirrorConfiguration.write({
            configPath,
            mirroredRegistries: [upstream.host],
            mirrorTargets: [mirror.url, second.url],
            tagResolution,
            prependExisting: false,
            basicAuth: Option.some({ username: "user", password: Redacted.make("word") })
          })
          yield* CriClient.pullImage(daemon.socket, `${upstream.host}/team/app:v${index}`)
          assert.isAbove(mirror.requests.length, 0)
          // Each request goes to the first host, to the second and then to upstream.
          assert.isAtLeast(second.requests.length, mirror.requests.length)
          assert.isAbove(upstream.requests.length, 0)
        }
      }), 120_000)
  }
)
