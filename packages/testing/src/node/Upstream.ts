/** A real registry (docker-registry), behind a proxy that records requests and can be switched off. */
import * as OciLayoutWriter from "@spegel-ts/content/OciLayoutWriter"
import * as Reference from "@spegel-ts/oci/Reference"
import { Effect, Result, Schedule } from "effect"
import { rm, writeFile } from "node:fs/promises"
import { createServer, request } from "node:http"
import { join } from "node:path"
import { pipeline } from "node:stream/promises"
import { setTimeout } from "node:timers/promises"
import * as RandomImage from "../content/RandomImage.ts"
import { freePort } from "../network/FreePort.ts"
import * as LocalServer from "../network/LocalServer.ts"
import * as Subprocess from "../process/Subprocess.ts"
import { temporary } from "../TemporaryDirectory.ts"

const repository = "team/app"

/** Registries that start at the same moment may be given the same free port: each has an address of its own. */
let started = 0
const nextAddress = () => `127.0.0.${100 + started++ % 100}`

/** Pushes one object unchanged (distribution specification, "Pushing"); other clients compress layers on the way. */
const upload = async (
  repository: string,
  kind: string,
  tag: string,
  digest: string,
  mediaType: string,
  bytes: Uint8Array
) => {
  const put = async (url: string, type: string) => {
    const body = Buffer.from(bytes)
    const response = await fetch(url, { method: "PUT", body, headers: { "content-type": type } })
    if (response.status !== 201) throw new Error(`${url}: ${response.status} ${await response.text()}`)
  }
  if (kind === "manifest") return put(`${repository}/manifests/${tag}`, mediaType)
  const started = await fetch(`${repository}/blobs/uploads/`, { method: "POST" })
  const location = new URL(started.headers.get("location") ?? "", repository)
  location.searchParams.set("digest", digest)
  return put(location.href, "application/octet-stream")
}

/** Starts an empty registry. */
export const start = Effect.gen(function*() {
  const directory = yield* temporary
  const address = nextAddress()
  const port = yield* freePort
  yield* Effect.promise(() =>
    writeFile(
      join(directory, "config.yml"),
      `version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: ${directory}/data}}\nhttp: {addr: "${address}:${port}"}\n`
    )
  )
  yield* Subprocess.start("docker-registry", ["serve", join(directory, "config.yml")], { stdio: "ignore" })
  const direct = `${address}:${port}`
  yield* Effect.tryPromise(() => fetch(`http://${direct}/v2/`)).pipe(
    Effect.retry({ schedule: Schedule.spaced("50 millis"), times: 200 })
  )

  // A request is noted as `GET /v2/... bytes=1024-`, with an empty range if it has none.
  const state = {
    down: false,
    blobBytes: 0,
    requests: [] as Array<string>,
    /** How fast each blob is sent, in bytes per second. */
    speed: Infinity
  }
  const proxy = createServer((incoming, outgoing) => {
    if (state.down) return incoming.socket.destroy()
    state.requests.push(`${incoming.method} ${incoming.url} ${incoming.headers.range ?? ""}`)
    const forwarded = request(
      { host: address, port, method: incoming.method, path: incoming.url, headers: incoming.headers },
      (response) => {
        outgoing.writeHead(response.statusCode ?? 502, response.headers)
        const shaped = async function*(chunks: AsyncIterable<Buffer>) {
          for await (const chunk of chunks) {
            if (incoming.url?.includes("/blobs/")) {
              state.blobBytes += chunk.length
              if (state.speed !== Infinity) await setTimeout(1000 * chunk.length / state.speed)
            }
            yield chunk
          }
        }
        // It fails if either side goes away, which the other one then sees.
        void pipeline(response, shaped, outgoing).catch(() => {})
      }
    )
    forwarded.on("error", () => outgoing.destroy())
    // containerd closes connections early when it fetches a layer in parts.
    outgoing.on("close", () => forwarded.destroy())
    incoming.pipe(forwarded)
  })
  const host = `${address}:${yield* LocalServer.listen(proxy, address)}`

  /** Pushes an image from the layout that it was written to. */
  const publish = Effect.fnUntraced(
    function*(writer: OciLayoutWriter.OciLayoutWriter, image: RandomImage.RandomImage, tag: string) {
      for (const { descriptor: { digest, mediaType }, kind } of image.objects.toReversed()) {
        const bytes = yield* writer.read(digest)
        yield* Effect.promise(() => upload(`http://${direct}/v2/${repository}`, kind, tag, digest, mediaType, bytes))
      }
    }
  )

  return {
    host,
    /** All images are there. */
    repository: { registry: host, repository },
    state,
    publish,
    /** Removes all images. */
    clear: Effect.promise(() => rm(join(directory, "data"), { recursive: true, force: true })),
    /** Makes and pushes an image of noise; images share layers only if their seeds are the same. Gives its full name, too. */
    push: Effect.fnUntraced(
      function*(image: {
        readonly tag: string
        readonly layers: number
        readonly layerSize: number
        readonly seed?: number
      }) {
        const root = join(directory, `image-${image.tag}`)
        const writer = yield* OciLayoutWriter.make({ root })
        const name = `${host}/${repository}:${image.tag}`
        const reference = Result.getOrThrow(Reference.parse(name))
        const layerSizes = Array.from({ length: image.layers }, () => image.layerSize)
        const written = yield* RandomImage.write({ writer, reference, layerSizes, seed: image.seed ?? 0 })
        yield* publish(writer, written, image.tag)
        yield* Effect.promise(() => rm(root, { recursive: true }))
        return { name, ...written }
      }
    )
  }
})

export type Upstream = Effect.Success<typeof start>

export type Image = Effect.Success<ReturnType<Upstream["push"]>>
