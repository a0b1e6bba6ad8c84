/** Asks one peer, for the content of a pull or for a part of it. */
import * as ByteRange from "@spegel-ts/oci/ByteRange"
import * as DistributionRequest from "@spegel-ts/oci/DistributionRequest"
import type { Peer } from "@spegel-ts/router/Peer"
import { PeerStalled } from "@spegel-ts/transfer/PeerError"
import { Duration, Effect, Fiber, Option, type Scope } from "effect"
import type { ContentRequest } from "../../ContentId.ts"
import type { PeerError } from "../../MirrorError.ts"
import { maxPatienceMillis } from "../../ResolvePolicy.ts"
import type { Asked } from "../auth/ProvedTransport.ts"
import * as PeerAnswer from "../mirror/PeerAnswer.ts"
import * as PeerSpans from "../observe/PeerSpans.ts"
import * as DownloadState from "../share/DownloadState.ts"
import { suspectHeader } from "../verify/SuspectHeader.ts"
import * as Attempt from "./Attempt.ts"
import type { MirrorParts } from "./MirrorParts.ts"
import type { Pull } from "./Pull.ts"

export interface AskOptions {
  /** A part of the content, as `Range` names it; undefined for the whole. */
  readonly range?: string | undefined
  /** How long the peer may be silent, in milliseconds; undefined for the usual time. */
  readonly patienceMillis?: number | undefined
  /** Asks what the peer holds, and for none of its bytes. */
  readonly head?: boolean
  /** Takes the content of a download that the peer has in progress, too. Only a peer that proves itself is told so. */
  readonly inProgress?: DownloadState.Asked | undefined
}

/** Sends a request to a peer, and judges its answer by its head. The first byte of the body has to come in time. */
export const ask = Effect.fnUntraced(function*(
  { options, transport }: Pick<MirrorParts, "options" | "transport">,
  request: ContentRequest,
  peer: Peer,
  { head = false, inProgress, patienceMillis, range }: AskOptions = {}
): Effect.fn.Return<PeerAnswer.PeerAnswer, PeerError, Scope.Scope> {
  // A HEAD of a manifest promises that a GET succeeds, so a GET is tried.
  const method = head ? "HEAD" : request._tag === "Manifest" ? "GET" : request.method
  const printed = DistributionRequest.print({ ...request, method, mirrored: true, range })
  const firstByteMillis = Math.min(Duration.toMillis(options.firstByteTimeout), patienceMillis ?? Infinity)
  const response = yield* transport.request(peer, {
    ...printed,
    headers: {
      ...printed.headers,
      ...(inProgress !== undefined && transport.proves(peer)
        ? { [DownloadState.inProgressHeader]: DownloadState.printAsked(inProgress) }
        : {}),
      ...(yield* PeerSpans.asking(printed))
    },
    patienceMillis: patienceMillis === undefined ? undefined : maxPatienceMillis
  }).pipe(Effect.timeoutOrElse({
    duration: firstByteMillis,
    orElse: () => Effect.fail(new PeerStalled({ peer: PeerAnswer.nameOf(peer), waitedMillis: firstByteMillis }))
  }))
  yield* PeerSpans.peerAnswered(response)
  return yield* PeerAnswer.judge(request, { ...peer, proved: transport.proves(peer) }, response, range)
})

/** The pull takes the content of a download from `start` on; undefined if it does not. */
export const downloadFrom = ({ mayFollow, mirror: { self } }: Pull, start: number): DownloadState.Asked | undefined =>
  mayFollow ? { asker: self, start } : undefined

/**
 * Asks for a part of a blob, or for the whole. A peer that has it in another size than `size` cannot have the content; by default
 * that is the size that containerd expects, if it is known.
 */
export const forBlob = Effect.fnUntraced(function*(
  pull: Pull,
  attempt: Attempt.Attempt,
  range: string | undefined,
  size?: number
): Effect.fn.Return<PeerAnswer.PeerAnswer, PeerError, Scope.Scope> {
  const { download, mirror, peers, request } = pull
  const looking = yield* download
  const { patienceMillis, peer } = attempt
  const inProgress = downloadFrom(pull, Option.getOrElse(ByteRange.firstByte(range), () => 0))
  const answer = yield* ask(mirror, request, peer, { range, patienceMillis, inProgress })
  yield* Attempt.answered(peers, attempt)
  const expected = size ?? Option.getOrUndefined((yield* Fiber.join(looking)).size)
  return yield* PeerAnswer.sized(answer, expected)
})

/** A peer may ignore ranges, as of an empty blob. */
const ignoresRange = (error: PeerError): boolean =>
  error._tag === "PeerRefused" && (error.status === 416 || error.status === 200)

/** Asks for what the client wants of a blob, or for the whole if that is small: a part cannot be verified. */
export const forWanted = (
  pull: Pull,
  attempt: Attempt.Attempt
): Effect.Effect<PeerAnswer.PeerAnswer, PeerError, Scope.Scope> => {
  const { mirror: { options: { verifySize } }, range } = pull
  if (range === undefined) return forBlob(pull, attempt, undefined)
  return forBlob(pull, attempt, range).pipe(
    Effect.filterOrElse(({ size }) => size > verifySize, () => forBlob(pull, attempt, undefined)),
    Effect.catchIf(
      ignoresRange,
      (error) => Effect.filterOrFail(forBlob(pull, attempt, undefined), ({ size }) => size <= verifySize, () => error)
    )
  )
}

/** A peer's HEAD request for content, by which it says something else with these headers. */
export const headWith = (request: ContentRequest, headers: Asked["headers"]): Asked => {
  const printed = DistributionRequest.print({ ...request, method: "HEAD", mirrored: true, range: undefined })
  return { ...printed, headers: { ...printed.headers, ...headers } }
}

/** Tells a peer that its bytes were wrong, so that it checks its own copy (`Scrubber`). Its answer does not matter. */
export const complain = (
  { options, transport }: MirrorParts,
  request: ContentRequest,
  peer: Peer
): Effect.Effect<void> =>
  transport.request(peer, headWith(request, { [suspectHeader]: "true" })).pipe(
    Effect.scoped,
    Effect.timeout(options.firstByteTimeout),
    Effect.ignore
  )
