/** Asks an address over HTTP whether a mirror of this system answers there, as containerd would ask it. */
import * as Canary from "@spegel-ts/registry/Canary"
import { Data, Effect } from "effect"

/** What answers at an address. */
export type Answerer = Data.TaggedEnum<{
  /** A mirror. `isOpen` means that it serves whoever asks, without a token. */
  Mirror: { readonly isOpen: boolean }
  /** Something else. */
  Other: { readonly description: string }
  Nobody: { readonly reason: string }
}>
export const Answerer = Data.taggedEnum<Answerer>()

/** An answer to a GET. */
export interface HttpAnswer {
  readonly status: number
  readonly headers: Headers
  readonly body: string
}

/** There was no answer. */
export class NoAnswer extends Data.TaggedError("NoAnswer")<{ readonly reason: string }> {}

const timeout = "3 seconds"
/** The largest body that is read, in characters. */
const maxBody = 4 * 1024 * 1024

const reasonOf = (cause: unknown): string => {
  const { cause: inner, message } = cause as Error
  return inner instanceof Error && inner.message !== "" ? inner.message : message
}

const readBounded = async (response: Response): Promise<string> => {
  const decoder = new TextDecoder()
  let text = ""
  for await (const chunk of response.body ?? []) {
    text += decoder.decode(chunk, { stream: true })
    if (text.length > maxBody) throw new Error(`the answer is larger than ${maxBody} characters`)
  }
  return text
}

/** Gets a URL; any status is an answer. */
export const get = (url: string, headers: Record<string, string> = {}): Effect.Effect<HttpAnswer, NoAnswer> =>
  Effect.tryPromise({
    try: async (signal) => {
      const response = await fetch(url, { signal, headers, redirect: "manual" })
      return { status: response.status, headers: response.headers, body: await readBounded(response) }
    },
    catch: (cause) => new NoAnswer({ reason: reasonOf(cause) })
  }).pipe(
    Effect.timeoutOrElse({
      duration: timeout,
      orElse: () => Effect.fail(new NoAnswer({ reason: `no answer within ${timeout}` }))
    })
  )

const describe = ({ headers, status }: HttpAnswer): string => {
  const server = headers.get("server")
  return `something that is not this mirror (status ${status}${server === null ? "" : `, ${server}`})`
}

/** What answers at the base URL of a mirror. Its errors begin with its name. */
export const ask = (url: string): Effect.Effect<Answerer> => {
  const canary = Canary.make()
  const path = canary === undefined
    ? "spegel-canary/manifests/latest"
    : `${canary.repository}/manifests/${canary.digest}`
  return get(`${url.replace(/\/+$/, "")}/v2/${path}?ns=docker.io`).pipe(
    Effect.map((answer) => {
      const isCanary = answer.headers.get("docker-content-digest") === canary?.digest
      return isCanary || answer.body.includes("spegel-ts: ")
        ? Answerer.Mirror({ isOpen: isCanary })
        : Answerer.Other({ description: describe(answer) })
    }),
    Effect.catch(({ reason }) => Effect.succeed(Answerer.Nobody({ reason })))
  )
}
