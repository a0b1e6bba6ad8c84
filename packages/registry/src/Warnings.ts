/**
 * What nodes tell each other of wrong bytes. A large layer is passed on before its digest is known, so that whoever gets
 * it from a peer that lies loses a pull; that node warns the others through the router, and they do not take the layer
 * from that peer. So a lie costs the cluster one pull and not each node one.
 *
 * Anybody can warn of anybody. All that a false warning does is that one layer comes from other peers or from upstream.
 */
import type * as Digest from "@spegel-ts/oci/Digest"
import * as ContentKey from "@spegel-ts/router/ContentKey"
import type { Peer } from "@spegel-ts/router/Peer"
import { Router } from "@spegel-ts/router/Router"
import { Duration, Effect, Option, Stream } from "effect"
import * as PullSpans from "./PullSpans.ts"

/** As long as this node itself does not ask such a peer. */
const lifetime = Duration.hours(1)
const maxGiven = 1000
/** It takes milliseconds, but for a busy node, or where a member has just died. A layer is rather taken than waited for. */
const minTimeout = Duration.millis(100)

export interface Warnings {
  /** Warns of peers that sent wrong bytes of a blob. */
  readonly give: (peers: ReadonlyArray<Peer>, digest: Digest.Digest) => Effect.Effect<void>
  /** Whether others warn of a peer; no, where that is not known in time. */
  readonly heard: (peer: Peer, digest: Digest.Digest) => Effect.Effect<boolean>
}

/**
 * Others are asked for `resolveTimeout`, or 100 ms where that is less. Warnings that were given are withdrawn after an
 * hour, or with the router.
 */
export const make = Effect.fnUntraced(function*(options: { readonly resolveTimeout: Duration.Duration }) {
  const timeout = Duration.max(minTimeout, options.resolveTimeout)
  const router = yield* Router
  const scope = yield* Effect.scope
  const given = new Set<ContentKey.ContentKey>()

  /** Keys are advertised as soon as the router is ready, if it is not. */
  const keep = (key: ContentKey.ContentKey) =>
    Effect.ignore(router.advertise([key])).pipe(
      Effect.andThen(Effect.sleep(lifetime)),
      Effect.andThen(router.withdraw([key])),
      Effect.ensuring(Effect.sync(() => given.delete(key)))
    )

  return {
    give: (peers, digest) =>
      Effect.forEach(peers, ({ id }) => {
        const key = ContentKey.warning(id, digest)
        if (given.has(key) || given.size >= maxGiven) return Effect.void
        given.add(key)
        return Effect.forkIn(keep(key), scope)
      }, { discard: true }),
    heard: ({ id }, digest) =>
      router.lookup(ContentKey.warning(id, digest), { count: 1 }).pipe(
        Stream.runHead,
        Effect.map(Option.isSome),
        Effect.timeoutOrElse({ duration: timeout, orElse: () => Effect.succeed(false) }),
        Effect.orElseSucceed(() => false),
        PullSpans.warningLookup
      )
  } satisfies Warnings
})
