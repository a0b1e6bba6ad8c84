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
import { type IncomingMessage, request as httpRequest } from "node:http"
import { text } from "node:stream/consumers"

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

/** An object of the image that was pulled. */
export interface PulledObject {
  readonly kind: string
  /** The host that sent its last byte. */
  readonly host: Host
  /** Body bytes that each host sent. */
  readonly bytes: Readonly<Record<Host, number>>
}

/** A part of an object that was written. */
export interface Progress {
  readonly kind: string
  readonly host: Host
  /** Bytes of this part. */
  readonly bytes: number
  /** Bytes of the object that have been written by now, and its size. */
  readonly written: number
  readonly size: number
}

export interface PullOptions {
  readonly writer: Pick<OciLayoutWriter, "ingest" | "read" | "tag">
  /** Undefined: everything comes from upstream. */
  readonly mirror: string | undefined
  /** Header fields for the mirror. */
  readonly headers?: Readonly<Record<string, string>>
  readonly upstream: string
  /** The address of this machine that it asks from. */
  readonly localAddress?: string
  readonly reference: Reference
  readonly tag: string
  /** Nothing more of the object is read before it ends. */
  readonly onProgress: (progress: Progress) => Effect.Effect<void>
}

/** A request failed or a body broke off; the next host is asked. */
class HostFailed extends Data.TaggedError("HostFailed")<{ readonly reason: string }> {}

const maxResumes = 16
/** containerd 2.3 waits this long for a response; no mirror should need longer for the next byte. */
const silence = Duration.seconds(30)

interface Question {
  readonly method?: "HEAD"
  readonly headers: Readonly<Record<string, string>>
  readonly localAddress: string | undefined
}

/** Gives the response once its head is here. Bodies by `fetch` would come at half the speed. */
const request = (url: string, question: Question) => {
  const { host } = new URL(url)
  return Effect.callback<IncomingMessage, HostFailed>((resume) => {
    const asking = httpRequest(url, question)
    asking.once("response", (response) => resume(Effect.succeed(response)))
    asking.on("error", (cause) => resume(Effect.fail(new HostFailed({ reason: `${host}: ${String(cause)}` }))))
    asking.end()
    return Effect.sync(() => asking.destroy())
  }).pipe(Effect.timeoutOrElse({
    duration: silence,
    orElse: () => Effect.fail(new HostFailed({ reason: `${host} did not answer` }))
  }))
}

const errorOf = (url: string, response: IncomingMessage) =>
  Effect.promise(() => text(response).catch(() => "")).pipe(
    Effect.flatMap((body) =>
      Effect.fail(new HostFailed({ reason: `${new URL(url).host} answered ${response.statusCode} ${body}` }))
    )
  )

/** Writes a body as it comes, until it ends or breaks off; the caller asks for the rest with a range. */
const drain = (response: IncomingMessage, ingest: IngestWriter, onWritten: (bytes: number) => Effect.Effect<void>) =>
  Effect.gen(function*() {
    const parts: AsyncIterator<Buffer> = response[Symbol.asyncIterator]()
    for (;;) {
      const part = yield* Effect.promise(() => parts.next().catch(() => undefined)).pipe(
        Effect.timeoutOrElse({ duration: silence, orElse: () => Effect.undefined })
      )
      if (part === undefined || part.done === true) return
      yield* ingest.write(part.value)
      yield* onWritten(part.value.length)
    }
  }).pipe(Effect.ensuring(Effect.sync(() => response.destroy())))

/** Pulls the whole image; gives its objects, the manifest first, each with the host that served it. */
export const pull = Effect.fn("PullClient.pull")(function*(options: PullOptions) {
  const { headers = {}, localAddress, mirror, onProgress, reference, tag, upstream, writer } = options
  const { registry, repository } = reference
  const hosts: ReadonlyArray<readonly [Host, string]> = [
    ...(mirror === undefined ? [] : [["mirror", mirror] as const]),
    ["upstream", upstream]
  ]
  const headersFor = (host: Host) => host === "mirror" ? headers : {}
  const urlOf = (base: string, path: string) => `${base}/v2/${repository}/${path}?ns=${encodeURIComponent(registry)}`

  /** Asks one host after another until one serves. */
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
        if (Option.isSome(result)) return result.value
      }
      return yield* new PullFailed({ content, reasons: refusals })
    })

  const resolve = fromHosts(`${repository}:${tag}`, (host, base) =>
    Effect.gen(function*() {
      const url = urlOf(base, `manifests/${tag}`)
      const response = yield* request(url, { method: "HEAD", headers: headersFor(host), localAddress })
      if (response.statusCode !== 200) return yield* errorOf(url, response)
      response.resume()
      const digest = Digest.fromString(String(response.headers["docker-content-digest"]))
      const mediaType = response.headers["content-type"]
      const size = Number(response.headers["content-length"])
      if (Option.isNone(digest) || mediaType === undefined || !(size > 0)) {
        return yield* new HostFailed({ reason: `${new URL(url).host} answered HEAD without digest, type or length` })
      }
      return new Descriptor({ digest: digest.value, mediaType, size })
    }))

  const fetchObject = Effect.fnUntraced(function*(kind: string, path: "blobs" | "manifests", descriptor: Descriptor) {
    const { digest, size } = descriptor
    const ingest = yield* writer.ingest(digest, size)
    const taken = { mirror: 0, upstream: 0 }
    const onWritten = (host: Host) => (bytes: number) =>
      Effect.flatMap(ingest.written, (written) => {
        taken[host] += bytes
        return onProgress({ kind, host, bytes, written, size })
      })
    const attempt = (host: Host, base: string) =>
      Effect.gen(function*() {
        const url = urlOf(base, `${path}/${digest}`)
        for (let resumes = 0; resumes < maxResumes; resumes++) {
          const from = yield* ingest.written
          const range = from === 0 ? {} : { range: `bytes=${from}-` }
          const response = yield* request(url, { headers: { ...headersFor(host), ...range }, localAddress })
          if (response.statusCode !== (from === 0 ? 200 : 206)) return yield* errorOf(url, response)
          yield* drain(response, ingest, onWritten(host))
          if ((yield* ingest.written) >= size) return host
        }
        return yield* new HostFailed({ reason: `${new URL(url).host} kept breaking off` })
      })
    const host = yield* fromHosts(digest, attempt)
    yield* ingest.commit
    return { kind, host, bytes: taken } satisfies PulledObject
  }, Effect.scoped)

  const manifest = yield* resolve
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
