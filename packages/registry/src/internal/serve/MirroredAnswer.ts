/** Answers with content that a peer holds. The head of the answer goes out with the first byte of the body. */
import * as MonotonicTime from "@spegel-ts/background/MonotonicTime"
import type { Reference } from "@spegel-ts/oci/Reference"
import type { BodyInterrupted } from "@spegel-ts/transfer/BodyInterrupted"
import { Effect, type Scope } from "effect"
import * as ContentId from "../../ContentId.ts"
import type { Mirror } from "../../Mirror.ts"
import type { MirrorError } from "../../MirrorError.ts"
import type { BodyMemory } from "../memory/BodyMemory.ts"
import type { OwnDownloads } from "../share/OwnDownloads.ts"
import type { Answer } from "./Answer.ts"
import { finish, sendBytes, whileTaking } from "./BlobBody.ts"
import * as ContentExchange from "./ContentExchange.ts"
import { Refusal, Refused } from "./Refusal.ts"
import * as Reply from "./Reply.ts"
import type { UploadAdmission } from "./UploadAdmission.ts"

export interface MirroredAnswerOptions {
  readonly mirror: Mirror
  readonly memory: BodyMemory
  readonly uploads: UploadAdmission
  readonly downloads: OwnDownloads
}

/** Fails with a `MirrorError` before anything was sent. */
export const make = ({ downloads, memory, mirror, uploads }: MirroredAnswerOptions) =>
  Effect.fnUntraced(function*(
    exchange: ContentExchange.ContentExchange,
    name: Reference,
    userAgent: string
  ): Effect.fn.Return<Answer, BodyInterrupted | MirrorError | Refused, Scope.Scope> {
    const { own, record, request, response } = exchange
    if (request.method === "GET") {
      if (!own) yield* uploads.admit(response)
      yield* ContentExchange.reserve(exchange, memory, "relay")
    }
    const { body, peer, ...head } = yield* Effect.catchTag(
      mirror.fetch({ request, name, record, userAgent, own }),
      "RangeNotSatisfiable",
      (error) =>
        Effect.fail(
          new Refused({
            refusal: Refusal.RangeOutside({ error, content: ContentId.print(ContentId.of(request, name)) })
          })
        )
    )
    const now = yield* MonotonicTime.millis
    const answer = ContentExchange.writeHead(exchange, head, { _tag: "Peer", id: peer.id }, now)
    if (request.method === "HEAD") return yield* Effect.as(finish(response), answer)
    if (own && request._tag === "Blob") {
      const image = `${name.registry}/${name.repository}`
      yield* downloads.servedByPeers({ digest: request.digest, image, isManifest: false })
    }
    const to = yield* ContentExchange.recipient(exchange, memory)
    if (body._tag === "Verified") {
      return yield* Effect.as(Effect.andThen(sendBytes(body.bytes, to), finish(response)), answer)
    }
    yield* memory.sending(to.client.socket, to.progress, record)
    return yield* whileTaking(to.progress, body.relay(to)).pipe(
      Effect.andThen(finish(response)),
      Effect.as(answer),
      // containerd has wrong bytes, and must not continue with them: an RST makes the pull begin again.
      Effect.catchTag("ContentCorrupted", ({ message }) => Effect.sync(() => Reply.reset(response, message, answer))),
      // An early FIN makes containerd continue at the byte reached with the next host; an RST would fail its pull.
      Effect.catchIf(
        (error) => error._tag !== "BodyInterrupted",
        ({ message }) =>
          Effect.as(
            Effect.logWarning(`${message}: ending the body early; containerd continues with the upstream registry`),
            Reply.interrupt(response, message, answer)
          )
      )
    )
  }, Effect.scoped)
