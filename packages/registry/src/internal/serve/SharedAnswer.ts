/** Answers peers that ask for what this node has not complete: for a part of its own download, or whether to download it themselves. */
import type * as Digest from "@spegel-ts/oci/Digest"
import { Effect, Option } from "effect"
import type { Mirror } from "../../Mirror.ts"
import { Followers } from "../share/Followers.ts"
import * as HeldQuestion from "../share/HeldQuestion.ts"
import type { Answer } from "./Answer.ts"
import type { ContentExchange } from "./ContentExchange.ts"
import * as DownloadAnswer from "./DownloadAnswer.ts"
import { Refusal, Refused } from "./Refusal.ts"
import type { ContentAsked } from "./RegistryRequest.ts"

export interface SharedAnswerOptions extends Omit<DownloadAnswer.DownloadAnswerOptions, "followers"> {
  readonly mirror: Mirror
}

/** Only peers that have proved themselves get an answer from here. */
export const make = Effect.fnUntraced(function*({ mirror, ...options }: SharedAnswerOptions) {
  const followers = new Followers()
  const serveDownload = yield* DownloadAnswer.make({ ...options, followers })
  const isProved = ({ proof }: ContentExchange) => mirror.shares && proof !== undefined

  /** Keeps a question how far a download is until it can be answered: by what is held, or by a part of it. */
  const hold = (exchange: ContentExchange, digest: Digest.Digest, { inProgress }: ContentAsked) => {
    const { request } = exchange
    return isProved(exchange) && request.method === "HEAD" && inProgress !== undefined
      ? HeldQuestion.hold({ downloads: options.downloads, followers }, request, digest, inProgress)
      : Effect.void
  }

  /** Says who downloads the content. It does not look at what is held: that takes longer, and who asks has looked for holders. */
  const decide = Effect.fnUntraced(
    function*(exchange: ContentExchange, digest: Digest.Digest, { lease }: ContentAsked) {
      if (lease === undefined || !isProved(exchange)) return
      const decision = yield* mirror.decide(exchange.request, digest, lease)
      return yield* new Refused({ refusal: Refusal.Leased({ digest, decision }) })
    }
  )

  /** None for a request that is answered as if there were no downloads. */
  const serve = (exchange: ContentExchange, digest: Digest.Digest, { inProgress }: ContentAsked) =>
    inProgress !== undefined && isProved(exchange)
      ? serveDownload(exchange, digest, inProgress)
      : Effect.succeed(Option.none<Answer>())

  return {
    decide,
    hold,
    serve,
    /** The nodes that a download is being sent to. */
    followersOf: (digest: Digest.Digest) => followers.of(digest)
  }
})

export type SharedAnswer = Effect.Success<ReturnType<typeof make>>
