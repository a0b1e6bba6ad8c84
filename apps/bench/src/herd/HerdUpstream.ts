/** The registry that all nodes share, behind a link of limited speed; its image is another one in each run. */
import * as OciLayoutWriter from "@spegel-ts/content/OciLayoutWriter"
import * as Reference from "@spegel-ts/oci/Reference"
import * as RandomImage from "@spegel-ts/testing/content/RandomImage"
import * as NetworkNamespace from "@spegel-ts/testing/network/NetworkNamespace"
import * as Subprocess from "@spegel-ts/testing/process/Subprocess"
import { temporary } from "@spegel-ts/testing/TemporaryDirectory"
import { Effect, Result, Schedule } from "effect"
import { mkdir, rm } from "node:fs/promises"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import * as Host from "./Host.ts"

/** What the registry has sent. */
export interface Counts {
  readonly blobBytes: number
  readonly manifestGets: number
  /** Bytes of blobs by the address that they went to. */
  readonly byAddress: Readonly<Record<string, number>>
}

const main = fileURLToPath(new URL("UpstreamMain.ts", import.meta.url))
const port = 5000

/** `bytesPerSecond` is the speed of its link; it sends the first byte of a blob after so many milliseconds. */
export const start = Effect.fnUntraced(function*(bytesPerSecond: number, firstByteMillis: number) {
  const host = yield* Host.make(250, { up: bytesPerSecond, down: bytesPerSecond })
  const layout = yield* temporary
  const writer = yield* OciLayoutWriter.make({ root: layout })
  const [command, ...args] = NetworkNamespace.enter(host.namespace)
  yield* Subprocess.start(command, [
    ...args,
    process.execPath,
    ...process.execArgv,
    main,
    host.address,
    String(port),
    layout,
    String(firstByteMillis)
  ], {
    stdio: ["ignore", "inherit", "inherit"]
  })
  const name = `${host.address}:${port}`
  const counts = Effect.promise(async () => await (await fetch(`http://${name}/counts`)).json() as Counts)
  yield* Effect.tryPromise(() => fetch(`http://${name}/counts`)).pipe(
    Effect.retry({ schedule: Schedule.spaced("50 millis"), times: 200 })
  )
  return {
    name,
    counts,
    /** Sends nothing more on the connections that an address has now. */
    stall: (address: string) => Effect.promise(() => fetch(`http://${name}/stall/${address}`)),
    /** Refuses these addresses, as clients without credentials, and nobody else. */
    refuse: (addresses: ReadonlyArray<string>) =>
      Effect.promise(() => fetch(`http://${name}/refuse/${addresses.join(",")}`)),
    /** Removes all images. */
    clear: Effect.promise(async () => {
      const blobs = join(layout, "blobs", "sha256")
      await rm(blobs, { recursive: true, force: true })
      await mkdir(blobs)
    }),
    /** Has an image with such layers; `seed` makes it another one. */
    push: (seed: number, layerSizes: ReadonlyArray<number>) =>
      RandomImage.write({
        writer,
        reference: Result.getOrThrow(Reference.parse(`${name}/team/app:v${seed}`)),
        layerSizes,
        seed
      })
  }
})

export type HerdUpstream = Effect.Success<ReturnType<typeof start>>
