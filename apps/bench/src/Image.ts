/** The bundled daemon as the image runs it: Node's flags, its environment, and code that was compiled before. */
import * as ImageDefinition from "@spegel-ts/release/ImageDefinition"
import { Effect } from "effect"
import { spawnSync } from "node:child_process"
import { existsSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

/** The daemon as it ships; `npm run bundle` makes it. */
export const bundle = fileURLToPath(new URL("../../spegel/bundle/main.js", import.meta.url))

const image = Effect.runSync(ImageDefinition.load)

/** The image's flags for Node. */
export const flags = image.entrypoint.slice(1, -1)

const { NODE_COMPILE_CACHE: _, ...environmentWithoutCache } = image.environment

/** The image's environment, without its cache of compiled code. */
export const environment = environmentWithoutCache

/** The environment with a cache below `directory`. Fills the cache with the bundle's code, unless that was done before. */
export const compiledIn = (directory: string) => {
  const compiled = { ...environment, NODE_COMPILE_CACHE: join(directory, "compiled") }
  if (!existsSync(compiled.NODE_COMPILE_CACHE)) {
    spawnSync(process.execPath, [...flags, bundle, "version"], { env: { ...process.env, ...compiled } })
  }
  return compiled
}
