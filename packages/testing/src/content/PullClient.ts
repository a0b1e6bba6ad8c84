/**
 * Pulls an image into an OCI layout as containerd does: it asks the mirror for each object first and the upstream registry last,
 * resumes a body that ends early with a range, and keeps nothing whose digest is wrong.
 */
import type { IngestWriter, OciLayoutWriter } from "@spegel-ts/content/OciLayoutWriter"
import { Descriptor } from "@spegel-ts/oci/Descriptor"
import * as Digest from "@spegel-ts/oci/Digest"
import * as Manifest from "@spegel-ts/oci/Manifest"
import type { Reference } from "@spegel-ts/oci/Reference"
import { Data, Duration, Effect, Option } from "effect"

/** No host served the object. */
export class PullFailed extends Data.TaggedError("PullFailed")<{
  readonly content: string
  /** The failure of each host, in the order in which they were asked. */
  readonly reasons: ReadonlyArray<string>
}> {
  override get message() {
    return `pulling ${this.content} failed: ${this.reasons.join("; ")}`
  }
}

/** The host that served an object. */
export type Host = "mirror" | "upstream"

/** An object of the image that was pulled; `millis` is how long it took. */
export interface PulledObject {
  readonly kind: string
  readonly descriptor: Descriptor
  /** The host that sent its last byte. */
  readonly host: Host
  /** The failures of the hosts that were asked before. */
  readonly refusals: ReadonlyArray<string>
  readonly millis: number
}

/** Bytes of an object that have been written, and its size. */
export interface Progress {
  readonly kind: string
  readonly written: number
  readonly size: number
}

export interface PullOptions {
  readonly writer: OciLayoutWriter
  readonly mirror: string
  readonly upstream: string
  readonly reference: Reference
  readonly tag: string
  readonly onProgress: (progress: Progress) => void
}

/** A request failed or a body broke off; the next host is asked. */
class HostFailed extends Data.TaggedError("HostFailed")<{ readonly reason: string }> {}

const maxResumes = 16
/** containerd 2.3 waits this long for a response; no mirror should need longer for the next byte. */
const silence = Duration.seconds(30)

const request = (url: string, init: RequestInit) =>
  Effect.tryPromise({
    try: (signal) => fetch(url, { ...init, signal }),
    catch: (cause) => new HostFailed({ reason: `${new URL(url).host}: ${String(cause)}` })
  }).pipe(Effect.timeoutOrElse({
    duration: silence,
    orElse: () => Effect.fail(new HostFailed({ reason: `${new URL(url).host} did not answer` }))
  }))

const errorOf = (url: string, response: Response) =>
  Effect.promise(() => response.text().catch(() => "")).pipe(
    Effect.flatMap((body) =>
      Effect.fail(new HostFailed({ reason: `${new URL(url).host} answered ${response.status} ${body}` }))
    )
  )

/** Writes a body as it comes, until it ends or breaks off; the caller asks for the rest with a range. */
const drain = (response: Response, ingest: IngestWriter, onWritten: (written: number) => void) =>
  Effect.gen(function*() {
    const reader = response.body?.getReader()
    for (;;) {
      const part = yield* Effect.promise(async () => reader?.read().catch(() => undefined)).pipe(
        Effect.timeoutOrElse({ duration: silence, orElse: () => Effect.undefined })
      )
      if (part?.value === undefined) return
      yield* ingest.write(part.value)
      onWritten(yield* ingest.written)
    }
  })

/** Pulls the whole image; gives its objects, the manifest first, each with the host that served it. */
export const pull = Effect.fn("PullClient.pull")(function*(options: PullOptions) {
  const { mirror, onProgress, reference, tag, upstream, writer } = options
  const { registry, repository } = reference
  const hosts: ReadonlyArray<readonly [Host, string]> = [["mirror", mirror], ["upstream", upstream]]
  const urlOf = (base: string, path: string) => `${base}/v2/${repository}/${path}?ns=${encodeURIComponent(registry)}`

  /** Asks one host after another until one serves; gives the failures of those before it, too. */
  const fromHosts = <A, E>(content: string, use: (host: Host, base: string) => Effect.Effect<A, HostFailed | E>) =>
    Effect.gen(function*() {
      const refusals: Array<string> = []
      for (const [host, base] of hosts) {
        const result = yield* use(host, base).pipe(
          Effect.asSome,
          Effect.catchTag("HostFailed", (error) => {
            refusals.push((error as HostFailed).reason)
            return Effect.succeedNone
          })
        )
        if (Option.isSome(result)) return { value: result.value, refusals }
      }
      return yield* new PullFailed({ content, reasons: refusals })
    })

  const resolve = fromHosts(`${repository}:${tag}`, (_host, base) =>
    Effect.gen(function*() {
      const url = urlOf(base, `manifests/${tag}`)
      const response = yield* request(url, { method: "HEAD" })
      if (!response.ok) return yield* errorOf(url, response)
      const digest = Digest.fromString(response.headers.get("docker-content-digest") ?? "")
      const mediaType = response.headers.get("content-type")
      const size = Number(response.headers.get("content-length"))
      if (Option.isNone(digest) || mediaType === null || !(size > 0)) {
        return yield* new HostFailed({ reason: `${new URL(url).host} answered HEAD without digest, type or length` })
      }
      return new Descriptor({ digest: digest.value, mediaType, size })
    }))

  const fetchObject = Effect.fnUntraced(function*(kind: string, path: "blobs" | "manifests", descriptor: Descriptor) {
    const { digest, size } = descriptor
    const started = performance.now()
    const ingest = yield* writer.ingest(digest, size)
    const attempt = (host: Host, base: string) =>
      Effect.gen(function*() {
        const url = urlOf(base, `${path}/${digest}`)
        for (let resumes = 0; resumes < maxResumes; resumes++) {
          const from = yield* ingest.written
          const response = yield* request(url, from === 0 ? {} : { headers: { range: `bytes=${from}-` } })
          if (response.status !== (from === 0 ? 200 : 206)) return yield* errorOf(url, response)
          yield* drain(response, ingest, (written) => onProgress({ kind, written, size }))
          if ((yield* ingest.written) >= size) return host
        }
        return yield* new HostFailed({ reason: `${new URL(url).host} kept breaking off` })
      })
    const { refusals, value: host } = yield* fromHosts(digest, attempt)
    yield* ingest.commit
    return { kind, descriptor, host, refusals, millis: performance.now() - started } satisfies PulledObject
  }, Effect.scoped)

  const { value: manifest } = yield* resolve
  const pulledManifest = yield* fetchObject("manifest", "manifests", manifest)
  const bytes = yield* writer.read(manifest.digest)
  const [config, ...layers] = Manifest.children(yield* Effect.fromResult(Manifest.parse(bytes)))
  const pulledConfig = config === undefined ? [] : [yield* fetchObject("config", "blobs", config)]
  // containerd fetches three layers at once.
  const pulledLayers = yield* Effect.forEach(
    layers,
    (layer, index) => fetchObject(`layer ${index + 1}`, "blobs", layer),
    { concurrency: 3 }
  )
  yield* writer.tag({ ...reference, tag }, manifest)
  return [pulledManifest, ...pulledConfig, ...pulledLayers]
})
