/** Answers peers that ask for what this node has not complete: for a part of its own download, or whether to download it themselves. */
import type * as Digest from "@spegel-ts/oci/Digest"
import { Effect, Option } from "effect"
import type { Mirror } from "../../Mirror.ts"
import type { Answer } from "./Answer.ts"
import type { ContentExchange } from "./ContentExchange.ts"
import * as DownloadAnswer from "./DownloadAnswer.ts"
import { Refusal, Refused } from "./Refusal.ts"
import type { ContentAsked } from "./RegistryRequest.ts"

export interface SharedAnswerOptions extends DownloadAnswer.DownloadAnswerOptions {
  readonly mirror: Mirror
}

/** None for a request that is answered as if there were no downloads. Only peers that have proved themselves get another answer. */
export const make = Effect.fnUntraced(function*({ mirror, ...options }: SharedAnswerOptions) {
  const serveDownload = yield* DownloadAnswer.make(options)
  return Effect.fnUntraced(function*(
    exchange: ContentExchange,
    digest: Digest.Digest,
    { inProgress, lease }: ContentAsked
  ) {
    if (!mirror.shares || exchange.proof === undefined) return Option.none<Answer>()
    if (lease !== undefined) {
      const decision = yield* mirror.decide(digest, lease)
      return yield* new Refused({ refusal: Refusal.Leased({ digest, decision }) })
    }
    return inProgress === undefined ? Option.none<Answer>() : yield* serveDownload(exchange, digest, inProgress)
  })
})
