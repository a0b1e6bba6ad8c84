/** The debug pages by their paths: the page and its files, its news, and each view as JSON. */
import { printed } from "@spegel-ts/registry/PullLog"
import { Effect, Option } from "effect"
import type { ServerResponse } from "node:http"
import * as EventStreams from "../page/EventStreams.ts"
import * as Page from "../page/Page.ts"
import { script } from "../page/Script.ts"
import { style } from "../page/Style.ts"
import * as Facts from "../views/Facts.ts"
import * as Images from "../views/Images.ts"
import * as Lookup from "../views/Lookup.ts"
import * as Peers from "../views/Peers.ts"
import * as Pulls from "../views/Pulls.ts"
import * as Status from "../views/Status.ts"
import * as Uploads from "../views/Uploads.ts"
import * as CpuProfile from "./CpuProfile.ts"

/** What a path is answered with. */
export interface Answered {
  readonly status: number
  readonly type: string
  readonly body: string
}

/** A request for a path. */
export interface Asked {
  readonly query: URLSearchParams
  /** The port that it came to. */
  readonly port: number
  /** Whether a page of somebody else made a browser send it. */
  readonly isForeign: boolean
}

export type Route = (asked: Asked) => Effect.Effect<Answered>

export interface DebugRoutes {
  readonly routes: ReadonlyMap<string, Route>
  /** Tells a page its news, until it goes away; false if there are too many pages. */
  readonly events: (response: ServerResponse, headers: Readonly<Record<string, string>>) => Effect.Effect<boolean>
}

const ok = (type: string, body: string): Answered => ({ status: 200, type, body })
const json = (value: unknown): Answered => ok("application/json", JSON.stringify(value))
const refused = (status: number, reason: string): Answered => ({ status, type: "text/plain", body: `${reason}\n` })

/** Views of what is known now. */
const views: Readonly<Record<string, (facts: Facts.Facts) => unknown>> = {
  "/debug/status.json": Status.of,
  "/debug/pulls.json": Pulls.of,
  "/debug/uploads.json": Uploads.of,
  "/debug/peers.json": (facts) => ({ self: facts.self, peers: Peers.of(facts), circuits: facts.activity.circuits }),
  "/debug/requests.json": ({ pulls }) => pulls.map(printed),
  "/debug/peers": ({ peers, self }) => [{ ...self, self: true }, ...peers],
  "/debug/pulls": ({ pulls }) => pulls.map(printed)
}

const profileRoute = Effect.map(CpuProfile.make, (take): Route => ({ isForeign, query }) => {
  if (isForeign) return Effect.succeed(refused(403, "a page of another site may not take a profile"))
  return Option.match(CpuProfile.secondsOf(query), {
    onNone: () => Effect.succeed(refused(400, `seconds must be a number from 1 to ${CpuProfile.maxSeconds}`)),
    onSome: (seconds) =>
      Effect.map(
        take(seconds),
        Option.match({
          onNone: () => refused(503, "a profile is being taken already"),
          onSome: (profile) => ok("application/json", profile)
        })
      )
  })
})

/** `profile` allows CPU profiles. The streams of news end with the scope. */
export const make = Effect.fnUntraced(function*({ profile }: { readonly profile: boolean }) {
  const facts = yield* Facts.make
  const images = yield* Images.make
  const lookUp = yield* Lookup.make
  const page: Route = ({ port, query }) =>
    Effect.gen(function*() {
      const image = query.get("image") ?? ""
      const lookup = image === "" ? undefined : yield* lookUp(image)
      const shown = yield* Effect.all({ facts, images })
      return ok("text/html; charset=utf-8", Page.render({ ...shown, lookup, port, profile }))
    })
  const routes = new Map<string, Route>([
    ["/debug/web/", page],
    ["/debug/page.css", () => Effect.succeed(ok("text/css; charset=utf-8", style))],
    ["/debug/page.js", () => Effect.succeed(ok("text/javascript; charset=utf-8", script))],
    ...Object.entries(views).map(([path, view]) =>
      [path, () => Effect.map(facts, (facts) => json(view(facts)))] as const
    ),
    ["/debug/images.json", () => Effect.map(images, json)],
    ["/debug/lookup.json", ({ query }) => Effect.map(lookUp(query.get("image") ?? ""), json)]
  ])
  if (profile) routes.set("/debug/profile", yield* profileRoute)
  return { routes, events: yield* EventStreams.make({ facts, images }) } satisfies DebugRoutes
})
