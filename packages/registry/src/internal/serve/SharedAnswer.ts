/** Answers peers that ask for what this node has not complete: for a part of its own download, or whether to download it themselves. */
import * as MonotonicTime from "@spegel-ts/background/MonotonicTime"
import type * as Digest from "@spegel-ts/oci/Digest"
import { Effect, Option } from "effect"
import type { Leases } from "../flight/Leases.ts"
import type { Answer } from "./Answer.ts"
import type { ContentExchange } from "./ContentExchange.ts"
import * as DownloadAnswer from "./DownloadAnswer.ts"
import { Refusal, Refused } from "./Refusal.ts"
import type { ContentAsked } from "./RegistryRequest.ts"

export interface SharedAnswerOptions extends DownloadAnswer.DownloadAnswerOptions {
  /** Whether this node takes part. */
  readonly shares: boolean
  readonly leases: Leases
}

/** None for a request that is answered as if there were no downloads. Only peers that have proved themselves get another answer. */
export const make = Effect.fnUntraced(function*({ leases, shares, ...options }: SharedAnswerOptions) {
  const serveDownload = yield* DownloadAnswer.make(options)
  return Effect.fnUntraced(function*(
    exchange: ContentExchange,
    digest: Digest.Digest,
    { inProgress, lease }: ContentAsked
  ) {
    if (!shares || exchange.proof === undefined) return Option.none<Answer>()
    if (lease !== undefined) {
      const decision = leases.ask(digest, lease, yield* MonotonicTime.millis)
      return yield* new Refused({ refusal: Refusal.Leased({ digest, decision }) })
    }
    return inProgress === undefined ? Option.none<Answer>() : yield* serveDownload(exchange, digest, inProgress)
  })
})
