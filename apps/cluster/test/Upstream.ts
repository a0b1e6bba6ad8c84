/** The registry that images come from, with the requests that it was sent. */
import * as OciLayoutWriter from "@spegel-ts/content/OciLayoutWriter"
import * as Reference from "@spegel-ts/oci/Reference"
import * as RandomImage from "@spegel-ts/testing/content/RandomImage"
import * as NetworkNamespace from "@spegel-ts/testing/network/NetworkNamespace"
import * as Command from "@spegel-ts/testing/process/Command"
import { Effect, Result, Schedule } from "effect"
import { readFileSync } from "node:fs"
import { readFile, rm } from "node:fs/promises"
import { join } from "node:path"
import type { Machine } from "./Machine.ts"
import * as Programs from "./Programs.ts"

export const host = "registry.cluster.test"

/** An answer of the registry. */
export interface Sent {
  /** The address of the client. */
  readonly client: string
  readonly path: string
  readonly bytes: number
}

/** The answers of a period. */
export type Traffic = ReadonlyArray<Sent>

export const totalBytes = (traffic: Traffic): number => traffic.reduce((sum, { bytes }) => sum + bytes, 0)

/** Bytes that were sent to these machines; of one image, if it is given. */
export const bytesOf = (traffic: Traffic, machines: ReadonlyArray<Machine>, image = `${host}/`): number => {
  const path = image.replace(host, "/v2").replace(/:[^/]*$/, "/")
  const addresses = new Set(machines.map(({ address }) => address))
  return totalBytes(traffic.filter((sent) => addresses.has(sent.client) && sent.path.startsWith(path)))
}

export const make = (machine: Machine, directory: string) => {
  const log = join(directory, "upstream", "access.log")
  const [enter, ...inMachine] = NetworkNamespace.enter(machine.name)
  const inNetwork = (...command: ReadonlyArray<string>) => Command.run(enter, [...inMachine, ...command])

  /** All answers to GET requests: pushes do not count. */
  const lines = (): Traffic =>
    readFileSync(log, "utf8").split("\n").flatMap((line) => {
      const [client = "", method = "", path = "", , bytes = "0"] = line.split(" ")
      return method === "GET" ? [{ client, path, bytes: Number(bytes) }] : []
    })

  const push = Effect.fnUntraced(function*(source: string, repository: string) {
    yield* inNetwork(
      "skopeo",
      "copy",
      "--quiet",
      "--dest-tls-verify=false",
      "--preserve-digests",
      source,
      `docker://127.0.0.1:5000/${repository}`
    )
    return `${host}/${repository}`
  })

  return {
    ready: inNetwork("curl", "-sfk", "https://127.0.0.1/v2/").pipe(
      Effect.retry({ schedule: Schedule.spaced("200 millis"), times: 100 }),
      Effect.asVoid
    ),
    /** Pushes an OCI archive; gives the image's name. */
    pushArchive: (path: string, repository: string) => push(`oci-archive:${path}`, repository),
    /** Makes and pushes an image of layers that do not compress, whose pods wait to be stopped; gives its name. */
    pushPod: Effect.fnUntraced(function*(repository: string, layerSizes: ReadonlyArray<number>, seed: number) {
      const root = join(directory, `image-${seed}`)
      const writer = yield* OciLayoutWriter.make({ root })
      const reference = Result.getOrThrow(Reference.parse(`${host}/${repository}`))
      const program = yield* Effect.promise(() => readFile(join(Programs.directories.bin, "pause")))
      yield* RandomImage.write({ writer, reference, layerSizes, seed, program })
      const name = yield* push(`oci:${root}:${host}/${repository}`, repository)
      yield* Effect.promise(() => rm(root, { recursive: true }))
      return name
    }),
    /** Runs `effect`; gives the answers that were sent meanwhile, too. */
    during: <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<readonly [A, Traffic], E, R> =>
      Effect.suspend(() => {
        const before = lines().length
        return Effect.map(effect, (value) => [value, lines().slice(before)] as const)
      })
  }
}

export type Upstream = ReturnType<typeof make>
