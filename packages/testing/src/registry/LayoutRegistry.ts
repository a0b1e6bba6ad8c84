/** A registry that serves the images of a layout as fast as it is told to, and counts what it sends; a process of its own. */
import * as OciLayoutWriter from "@spegel-ts/content/OciLayoutWriter"
import { Effect, Schedule } from "effect"
import { mkdir, rm } from "node:fs/promises"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import * as RandomImage from "../content/RandomImage.ts"
import * as NetworkNamespace from "../network/NetworkNamespace.ts"
import * as Subprocess from "../process/Subprocess.ts"

/** How it sends. Without bounds, it answers at once and sends as fast as the machine can. */
export interface Shape {
  /** What all its bodies together get. */
  readonly bytesPerSecond?: number
  /** Before each answer. */
  readonly latencyMillis?: number
  /** Between the head and the first byte of a blob. */
  readonly firstByteMillis?: number
}

/** What it has sent. */
export interface Counts {
  readonly blobBytes: number
  readonly manifestBytes: number
  readonly manifestGets: number
  /** Bytes of both by the address that they went to. */
  readonly byAddress: Readonly<Record<string, number>>
}

export interface RegistryOptions {
  readonly address: string
  readonly port: number
  /** A directory for its images. */
  readonly layout: string
  readonly shape: Shape
  /** The network that it is in. Default: that of this process. */
  readonly namespace?: NetworkNamespace.Namespace
}

const main = fileURLToPath(new URL("LayoutRegistryMain.ts", import.meta.url))

/** Starts it, without images, and waits until it answers. It ends with the scope. */
export const start = Effect.fnUntraced(function*({ address, layout, namespace, port, shape }: RegistryOptions) {
  const writer = yield* OciLayoutWriter.make({ root: layout })
  const [command, ...args] = [
    ...(namespace === undefined ? [] : NetworkNamespace.enter(namespace)),
    process.execPath,
    ...process.execArgv,
    main,
    address,
    String(port),
    layout,
    JSON.stringify(shape)
  ] as const
  yield* Subprocess.start(command ?? "", args, { stdio: ["ignore", "inherit", "inherit"] })
  const name = `${address}:${port}`
  const ask = (path: string) => Effect.promise(() => fetch(`http://${name}/${path}`))
  yield* Effect.tryPromise(() => fetch(`http://${name}/counts`)).pipe(
    Effect.retry({ schedule: Schedule.spaced("20 millis"), times: 500 })
  )
  return {
    /** Its host and port. */
    name,
    counts: Effect.flatMap(ask("counts"), (response) => Effect.promise(() => response.json() as Promise<Counts>)),
    /** Sends nothing more on the connections that an address has now. */
    stall: (to: string) => ask(`stall/${to}`),
    /** Refuses these addresses, as clients without credentials, and nobody else. */
    refuse: (addresses: ReadonlyArray<string>) => ask(`refuse/${addresses.join(",")}`),
    /** Sends in another way from now on. */
    reshape: (next: Shape) => ask(`shape/${encodeURIComponent(JSON.stringify(next))}`),
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
        reference: { registry: name, repository: "team/app", tag: `v${seed}` },
        layerSizes,
        seed
      })
  }
})

export type LayoutRegistry = Effect.Success<ReturnType<typeof start>>
