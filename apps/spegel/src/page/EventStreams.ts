/**
 * Sends each open page the sections that changed, as server-sent events. Gathers nothing while no page is open. Disconnects a page that
 * reads too slowly.
 */
import * as Background from "@spegel-ts/background/Background"
import { Effect, Latch } from "effect"
import type { ServerResponse } from "node:http"
import type { Facts } from "../views/Facts.ts"
import type { ImagesView } from "../views/Images.ts"
import { type SectionName, sections } from "./Sections.ts"

/** How many pages are told at once. */
export const maxStreams = 8
/** A page with more unread bytes is disconnected. It gets all sections when it reconnects. */
const maxUnread = 512 * 1024
/** After so many seconds without news a comment shows that the stream lives. */
const silentSeconds = 15

export interface Sources {
  readonly facts: Effect.Effect<Facts>
  readonly images: Effect.Effect<ImagesView>
}

/** One page, with the sections that it has. */
interface Listener {
  readonly response: ServerResponse
  readonly known: Map<SectionName, string>
  silent: number
}

const names = Object.keys(sections) as ReadonlyArray<SectionName>

const tell = (listener: Listener, rendered: ReadonlyMap<SectionName, string>): void => {
  const { known, response } = listener
  if (response.writableLength > maxUnread) return void response.destroy()
  const changed = [...rendered].filter(([name, text]) => known.get(name) !== text)
  for (const [name, text] of changed) known.set(name, text)
  if (changed.length > 0) response.write(`data: ${JSON.stringify(Object.fromEntries(changed))}\n\n`)
  else if (++listener.silent >= silentSeconds) response.write(":\n\n")
  else return
  listener.silent = 0
}

/** The streams; their work ends with the scope. */
export const make = Effect.fnUntraced(function*(sources: Sources) {
  const listeners = new Set<Listener>()
  const awake = yield* Latch.make(false)
  const rendered = new Map<SectionName, string>()
  let seconds = 0

  const render = Effect.gen(function*() {
    const due = names.filter((name) => seconds % sections[name].everySeconds === 0)
    const facts = yield* sources.facts
    const images = due.includes("images") ? yield* sources.images : { images: [], isUnknown: true }
    for (const name of due) rendered.set(name, sections[name].render({ facts, images }).text)
    seconds++
  })
  const rest = Effect.suspend(() => {
    rendered.clear()
    seconds = 0
    return awake.close
  })
  const tick = Effect.suspend(() =>
    listeners.size === 0 ? rest : Effect.map(render, () => {
      for (const listener of listeners) tell(listener, rendered)
    })
  )
  yield* Background.keepRunning(
    "debug page",
    awake.await.pipe(Effect.andThen(tick), Effect.andThen(Effect.sleep("1 second")), Effect.forever)
  )

  /** Tells a page the news until it goes away; false if there are too many. */
  return (response: ServerResponse, headers: Readonly<Record<string, string>>): Effect.Effect<boolean> =>
    Effect.suspend(() => {
      if (listeners.size >= maxStreams) return Effect.succeed(false)
      const listener: Listener = { response, known: new Map(), silent: 0 }
      response.writeHead(200, { ...headers, "content-type": "text/event-stream", "cache-control": "no-store" })
      response.write("retry: 2000\n\n")
      listeners.add(listener)
      const closed = Effect.callback<void>((resume) => {
        response.once("close", () => resume(Effect.void))
      })
      return awake.open.pipe(
        Effect.andThen(closed),
        Effect.as(true),
        Effect.ensuring(Effect.sync(() => void listeners.delete(listener)))
      )
    })
})
