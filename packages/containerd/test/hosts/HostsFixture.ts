/** The directory and options that tests of the mirror configuration start from. */
import type * as MirrorConfiguration from "@spegel-ts/containerd/MirrorConfiguration"
import { Effect, Option } from "effect"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

export const url = "http://127.0.0.1:5000"
export const registry = "registry.example:5000"

/** A directory that is removed with the scope. */
export const temporary = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "hosts-"))),
  (directory) => Effect.sync(() => rmSync(directory, { recursive: true, force: true }))
)

/** Mirrors all registries. */
export const options = (configPath: string): MirrorConfiguration.MirrorConfigurationOptions => ({
  configPath,
  mirroredRegistries: [],
  mirrorTargets: [url],
  tagResolution: "mirror",
  prependExisting: false,
  basicAuth: Option.none()
})
