import { assert, describe, it } from "@effect/vitest"
import * as ContainerdDaemon from "@spegel-ts/testing/containerd/ContainerdDaemon"
import * as ContainerdPackages from "@spegel-ts/testing/containerd/ContainerdPackages"
import * as CriClient from "@spegel-ts/testing/containerd/CriClient"
import { Effect } from "effect"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

const missing = ContainerdDaemon.missingPrerequisite()

describe.skipIf(missing !== undefined)(
  `containerd's versions${missing === undefined ? "" : ` (skipped: ${missing})`}`,
  () => {
    for (const version of ContainerdPackages.versions) {
      it.live(`${version} is what it says, and answers the kubelet's calls`, () =>
        Effect.gen(function*() {
          const programs = yield* ContainerdPackages.fetch(version)
          const configPath = yield* Effect.acquireRelease(
            Effect.sync(() => mkdtempSync(join(tmpdir(), "containerd-certs-"))),
            (directory) => Effect.sync(() => rmSync(directory, { recursive: true }))
          )
          const daemon = yield* ContainerdDaemon.start({ programs, configPath })
          assert.match(yield* daemon.ctr("version"), new RegExp(`^Server:\\n\\s+Version:\\s+${version}\\.`, "m"))
          const name = "registry.example/none:v1"
          assert.isUndefined(yield* CriClient.imageStatus(daemon.socket, name))
          const error = yield* Effect.flip(CriClient.pullImage(daemon.socket, "127.0.0.1:1/none:v1"))
          assert.include(error.message, "connection refused")
        }))
    }
  }
)
