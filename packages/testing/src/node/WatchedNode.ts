/** A node whose mirror is watched for what it logs and shows about containerd. */
import { assert } from "@effect/vitest"
import { Effect, Schedule } from "effect"
import * as ContainerdPackages from "../containerd/ContainerdPackages.ts"
import * as FakeRegistry from "../containerd/FakeRegistry.ts"
import * as MirrorPorts from "./MirrorPorts.ts"
import * as Node from "./Node.ts"

export interface WatchedNodeOptions
  extends Pick<Node.NodeOptions, "configPath" | "configuration" | "discardUnpackedLayers" | "showsConfig">
{
  readonly version: ContainerdPackages.Version
}

/** Starts a node with this version of containerd, and a registry that has any image. */
export const start = Effect.fnUntraced(function*({ version, ...options }: WatchedNodeOptions) {
  const upstream = yield* FakeRegistry.start({ address: "127.0.0.100" })
  const programs = yield* Effect.orDie(ContainerdPackages.fetch(version))
  const node: Node.Node = yield* Node.start(1, yield* MirrorPorts.free, upstream.host, {
    ...options,
    programs,
    registry: [`--mirrored-registries=http://${upstream.host}`]
  }).pipe(Effect.orDie)
  const mirrors = [node.mirror]
  const get = (path: string) =>
    Effect.promise(() => fetch(`${node.metrics}${path}`).then((response) => response.text()))

  return {
    version,
    node,
    upstream,
    /** Pulls as the kubelet does. */
    pull: (tag: string): Node.Pull => node.pullByCri(`${upstream.host}/team/app:${tag}`),
    restartMirror: Effect.gen(function*() {
      const last = mirrors.at(-1) ?? node.mirror
      last.child.kill("SIGTERM")
      yield* last.finished
      mirrors.push(yield* Effect.orDie(node.startMirror))
    }),
    page: get("/debug/web/"),
    /** The number of requests that no peer could serve. */
    misses: Effect.map(
      get("/metrics"),
      (text) => Number(/^spegel_mirror_requests_total{[^}]*cache="miss"[^}]*} (\d+)$/m.exec(text)?.[1])
    ),
    /** The reasons whose metric is 1. */
    faults: Effect.map(get("/metrics"), (text) => {
      assert.include(text, `spegel_containerd_fault{reason="NotAsked"}`)
      return [...text.matchAll(/^spegel_containerd_fault\{reason="(\w+)"\} 1$/gm)].map(([, reason = ""]) => reason)
    }),
    /** The log lines of its mirrors about containerd, at a level. */
    said: (level: "INFO" | "WARN") =>
      mirrors.flatMap(({ output }) => output.stderr.split("\n"))
        .filter((line) => line.includes(level) && /containerd('s)? /.test(line))
  }
})

export type WatchedNode = Effect.Success<ReturnType<typeof start>>

/** Repeats `check` until it does not throw; fails with its text after so many seconds. */
export const eventually = (seconds: number, check: () => void) =>
  Effect.try({ try: check, catch: String }).pipe(
    Effect.retry({ schedule: Schedule.spaced("250 millis"), times: seconds * 4 })
  )
