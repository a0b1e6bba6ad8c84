/** Answers this node's own containerd with the canary of `spegel doctor`, which is in no store. */
import * as MonotonicTime from "@spegel-ts/background/MonotonicTime"
import * as MediaType from "@spegel-ts/oci/MediaType"
import type { BodyInterrupted } from "@spegel-ts/transfer/BodyInterrupted"
import { Effect } from "effect"
import * as Canary from "../../Canary.ts"
import type { BodyMemory } from "../memory/BodyMemory.ts"
import * as Answer from "../serve/Answer.ts"
import { finish, sendBytes } from "../serve/BlobBody.ts"
import * as ContentExchange from "../serve/ContentExchange.ts"
import { Refusal, Refused } from "../serve/Refusal.ts"

export const make = (memory: BodyMemory) =>
  Effect.fnUntraced(function*(
    exchange: ContentExchange.ContentExchange
  ): Effect.fn.Return<Answer.Answer, BodyInterrupted | Refused> {
    const { own, request, response } = exchange
    if (!own) return yield* new Refused({ refusal: Refusal.CanaryOfOther() })
    const found = Canary.find(request)
    if (found === undefined) return yield* new Refused({ refusal: Refusal.NotHeld({ wanted: "this canary" }) })
    const { bytes, digest } = found
    const mediaType = request._tag === "Manifest" ? found.mediaType : MediaType.octetStream
    const range = yield* ContentExchange.rangeOf(exchange, digest, bytes.length)
    const head = { digest, mediaType, size: bytes.length, range }
    const answer = ContentExchange.writeHead(exchange, head, Answer.local, yield* MonotonicTime.millis)
    if (request.method === "GET") {
      const { end, start } = ContentExchange.partOf(head)
      yield* sendBytes(bytes.subarray(start, end), yield* ContentExchange.recipient(exchange, memory))
    }
    yield* finish(response)
    return answer
  })
