/** Who has an image: the answer of the network, and of this node's own store. */
import { ContentStore } from "@spegel-ts/content/ContentStore"
import * as Digest from "@spegel-ts/oci/Digest"
import * as Reference from "@spegel-ts/oci/Reference"
import * as ContentKey from "@spegel-ts/router/ContentKey"
import { Router } from "@spegel-ts/router/Router"
import { Effect, Option, Result, Schema, Semaphore, Stream } from "effect"
import * as NodeNames from "./NodeNames.ts"

export const Lookup = Schema.Struct({
  /** What was asked for. */
  image: Schema.String,
  /** Why it was not looked up; empty if it was. */
  problem: Schema.String,
  /** The digest, or `registry/repository:tag`, that was looked up; empty if none was. */
  key: Schema.String,
  /** The digest that this node has for it; null if it does not have it. */
  heldHere: Schema.NullOr(Schema.String),
  /** The other nodes that say that they have it. */
  nodes: Schema.Array(NodeNames.NodeName),
  /** Whether there may be more nodes: the lookup ended early, or found as many as are listed. */
  mayBeMore: Schema.Boolean
})
export type Lookup = typeof Lookup.Type

/** Leaves room in a `ContentKey` for the default registry and tag. */
const maxLength = 480
const maxNodes = 100
const timeout = "3 seconds"
/** Lookups at once. */
const maxLookups = 4

type Wanted =
  | { readonly _tag: "Digest"; readonly digest: Digest.Digest }
  | { readonly _tag: "Tag"; readonly reference: Reference.Reference }

/** A digest by itself, or one behind an image's name, names content; a name without a tag means `latest`. */
const parse = (image: string): Result.Result<Wanted, string> => {
  if (image.length > maxLength) return Result.fail("the name is too long")
  const digest = Digest.fromString(image)
  if (Option.isSome(digest)) return Result.succeed({ _tag: "Digest", digest: digest.value })
  return Result.match(Reference.parse(image), {
    onFailure: ({ message }) => Result.fail(message),
    onSuccess: ({ digest, ...reference }) =>
      Result.succeed<Wanted>(
        digest === undefined
          ? { _tag: "Tag", reference: { tag: "latest", ...reference } }
          : { _tag: "Digest", digest }
      )
  })
}

const notAsked = (image: string, problem: string): Lookup => ({
  image: image.slice(0, maxLength),
  problem,
  key: "",
  heldHere: null,
  nodes: [],
  mayBeMore: false
})

/** Gives a function that looks an image up. It never fails, and ends within a few seconds. */
export const make = Effect.gen(function*() {
  const router = yield* Router
  const store = yield* ContentStore
  const places = yield* Semaphore.make(maxLookups)

  const heldHere = (wanted: Wanted) =>
    (wanted._tag === "Tag" ? store.resolve(wanted.reference) : Effect.as(store.size(wanted.digest), wanted.digest))
      .pipe(Effect.orElseSucceed(() => null))

  const lookUp = Effect.fnUntraced(function*(image: string, wanted: Wanted) {
    const key = wanted._tag === "Tag" ? Reference.name(wanted.reference) : wanted.digest
    const nodes: Array<NodeNames.NodeName> = []
    const ended = yield* router.lookup(ContentKey.make(key), { count: maxNodes }).pipe(
      Stream.runForEach((peer) => Effect.sync(() => void nodes.push(NodeNames.nameOf(peer)))),
      Effect.as(""),
      Effect.catchTag("RouterNotReady", ({ message }) => Effect.succeed(message)),
      Effect.timeoutOption(timeout)
    )
    return {
      image,
      problem: Option.getOrElse(ended, () => ""),
      key,
      heldHere: yield* heldHere(wanted),
      nodes,
      mayBeMore: Option.isNone(ended) || nodes.length >= maxNodes
    } satisfies Lookup
  })

  return (text: string): Effect.Effect<Lookup> => {
    const image = text.trim()
    return Result.match(parse(image), {
      onFailure: (problem) => Effect.succeed(notAsked(image, problem)),
      onSuccess: (wanted) =>
        lookUp(image, wanted).pipe(
          places.withPermitsIfAvailable(1),
          Effect.map(Option.getOrElse(() => notAsked(image, "too many lookups at once: try again in a moment")))
        )
    })
  }
})
