/** Network namespaces as hosts of one network, removed with the scope. Tests run what uses the network inside them. */
import { Effect } from "effect"
import { execFile } from "node:child_process"
import { promisify } from "node:util"

const ip = (...args: ReadonlyArray<string>) => promisify(execFile)("ip", args)

export interface Host {
  readonly namespace: string
  readonly address: string
  /** The command line that runs a program on this host. */
  readonly command: (program: string, ...args: ReadonlyArray<string>) => readonly [string, ReadonlyArray<string>]
}

/** Makes `count` hosts that reach each other; the addresses exist in their namespaces only. */
export const make = Effect.fnUntraced(function*(count: number) {
  const name = (index: number) => `spegel-image-${process.pid}-${index}`
  const namespaces = Array.from({ length: count }, (_, index) => name(index))
  yield* Effect.acquireRelease(
    Effect.promise(async () => {
      for (const namespace of namespaces) {
        await ip("netns", "add", namespace)
        await ip("-n", namespace, "link", "set", "lo", "up")
      }
      // The first host has the bridge that the others are plugged into.
      const [hub = ""] = namespaces
      await ip("-n", hub, "link", "add", "bridge", "type", "bridge")
      await ip("-n", hub, "addr", "add", "10.231.77.1/24", "dev", "bridge")
      await ip("-n", hub, "link", "set", "bridge", "up")
      for (const [index, namespace] of namespaces.entries()) {
        if (index === 0) continue
        const port = `port${index}`
        await ip("link", "add", "eth0", "netns", namespace, "type", "veth", "peer", "name", port, "netns", hub)
        await ip("-n", hub, "link", "set", port, "master", "bridge", "up")
        await ip("-n", namespace, "addr", "add", `10.231.77.${index + 1}/24`, "dev", "eth0")
        await ip("-n", namespace, "link", "set", "eth0", "up")
      }
    }),
    () =>
      Effect.promise(() =>
        Promise.all(namespaces.map((namespace) => ip("netns", "del", namespace).catch(() => undefined)))
      )
  )
  return namespaces.map((namespace, index): Host => ({
    namespace,
    address: `10.231.77.${index + 1}`,
    command: (program, ...args) => ["ip", ["netns", "exec", namespace, program, ...args]]
  }))
})
