import { assert, describe, it } from "@effect/vitest"
import { ContainerdClient } from "@spegel-ts/containerd/ContainerdClient"
import * as ContainerdStore from "@spegel-ts/containerd/ContainerdStore"
import { ContentStore } from "@spegel-ts/content/ContentStore"
import * as Digest from "@spegel-ts/oci/Digest"
import * as ContainerdDaemon from "@spegel-ts/testing/containerd/ContainerdDaemon"
import * as ContainerdPackages from "@spegel-ts/testing/containerd/ContainerdPackages"
import { Effect, Layer, Schedule, Stream } from "effect"
import { spawn } from "node:child_process"

const missing = ContainerdDaemon.missingPrerequisite()
const digest = Digest.ofBytes(Buffer.from("the bytes of a layer"))

describe.skipIf(missing !== undefined)(
  `downloads of containerd${missing === undefined ? "" : ` (skipped: ${missing})`}`,
  () => {
    for (const version of ContainerdPackages.versions) {
      it.live(
        `${version}: are told apart by namespace and ref, and discarded one by one`,
        () =>
          Effect.gen(function*() {
            const programs = yield* ContainerdPackages.fetch(version)
            const daemon = yield* ContainerdDaemon.start({ programs })
            /** A client that goes on sending. */
            const download = (namespace: string, ref: string) =>
              Effect.acquireRelease(
                Effect.sync(() => {
                  const args = ["--address", daemon.socket, "--namespace", namespace, "content", "ingest"]
                  const child = spawn(programs.ctr, [...args, "--expected-size", "20", ref], {
                    stdio: ["pipe", "ignore", "ignore"]
                  })
                  child.stdin.on("error", () => {}).write("the bytes of")
                  return child
                }),
                (child) => Effect.sync(() => child.kill("SIGKILL"))
              )
            const downloads = [
              { namespace: "k8s.io", ref: `layer-${digest}` },
              { namespace: "k8s.io", ref: `config-registry.example/1/app@${digest}` },
              { namespace: "other", ref: `layer-${digest}` }
            ]
            yield* Effect.forEach(downloads, ({ namespace, ref }) => download(namespace, ref))
            yield* Effect.gen(function*() {
              const store = yield* ContentStore
              const listed = Stream.runCollect(store.inProgress)
              const found = yield* Effect.repeat(listed, {
                schedule: Schedule.spaced("20 millis"),
                until: (found) => found.length === downloads.length
              })
              const of = (index: number) =>
                found.find(({ namespace, ref }) =>
                  namespace === downloads[index]?.namespace && ref === downloads[index].ref
                ) ?? assert.fail(`${JSON.stringify(downloads[index])} is not among ${JSON.stringify(found)}`)
              const open = yield* Effect.forEach([0, 1, 2], (index) => store.openIngest(of(index)))
              const states = Effect.forEach(open, ({ state }) => Effect.map(state, ({ _tag }) => _tag))

              yield* store.discard(of(2))
              assert.deepStrictEqual(yield* states, ["InProgress", "InProgress", "Deleted"])
              yield* store.discard(of(1))
              yield* store.discard(of(1))
              assert.deepStrictEqual(yield* states, ["InProgress", "Deleted", "Deleted"])
              assert.deepStrictEqual(
                (yield* listed).map(({ namespace, ref }) => ({ namespace, ref })),
                downloads.slice(0, 1)
              )
            }).pipe(Effect.provide(
              ContainerdStore.layer({ contentPath: daemon.contentPath }).pipe(
                Layer.provideMerge(ContainerdClient.layer({ socket: daemon.socket, namespace: "k8s.io" }))
              )
            ))
          }),
        60_000
      )
    }
  }
)
