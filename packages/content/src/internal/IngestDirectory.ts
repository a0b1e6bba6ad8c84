/** Downloads in progress: `ingest/<any>/{ref,total,data}`, as containerd's content store keeps them. */
import * as Digest from "@spegel-ts/oci/Digest"
import { Effect, Option } from "effect"
import { lstat, opendir } from "node:fs/promises"
import { join } from "node:path"
import type { Ingest, StoreUnavailable } from "../ContentStore.ts"
import { readSmall } from "./BoundedFile.ts"
import { isMissing, tryFile } from "./FileFailure.ts"

/** containerd's metadata store keeps refs as `<namespace>/<number>/<ref>`; other writers have no namespaces. */
const containerdRef = /^([^/]+)\/[0-9]+\/(.+)$/s

/** containerd names an ingest `<kind>-<digest>`, with an image name in between if the descriptor has one. */
const digestOfIngest = /(?:^|[-@])(sha256:[0-9a-f]{64})$/
const decimal = /^[0-9]{1,15}$/

/** containerd has one ingest for each download in progress: a handful. */
const maxIngests = 1000
/** An ingest's `ref` is a namespace, a number and an image name. */
const maxRefSize = 4096

const names = async (directory: string): Promise<ReadonlyArray<string>> => {
  const found: Array<string> = []
  for await (const entry of await opendir(directory)) {
    if (entry.isDirectory()) found.push(entry.name)
    if (found.length >= maxIngests) break
  }
  return found
}

const readIngest = async (directory: string): Promise<Option.Option<Ingest>> => {
  const path = join(directory, "data")
  const text = (await readSmall(join(directory, "ref"), maxRefSize))?.toString("utf8").trim() ?? ""
  const [, namespace = "", ref = text] = containerdRef.exec(text) ?? []
  const digest = digestOfIngest.exec(ref)?.[1]
  const total = (await readSmall(join(directory, "total"), 32))?.toString("utf8").trim()
  if (digest === undefined || total === undefined || !decimal.test(total) || Number(total) === 0) return Option.none()
  const data = await lstat(path)
  return data.isFile()
    ? Option.some({
      namespace,
      ref,
      digest: Digest.Digest.make(digest),
      path,
      size: Number(total),
      written: data.size
    })
    : Option.none()
}

/** The ingests in `directory`, which may not exist. Ingests without a size, or gone when we read them, are left out. */
export const list = Effect.fnUntraced(function*(
  directory: string
): Effect.fn.Return<ReadonlyArray<Ingest>, StoreUnavailable> {
  const found = yield* tryFile("list downloads under way", directory, () =>
    names(directory).catch((cause: unknown) => {
      if (isMissing(cause)) return []
      throw cause
    }))
  const ingests = yield* Effect.forEach(
    found,
    (name) => Effect.promise(() => readIngest(join(directory, name)).catch(() => Option.none())),
    { concurrency: 16 }
  )
  return ingests.flatMap(Option.toArray)
})
