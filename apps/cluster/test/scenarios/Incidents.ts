/** Makes things go wrong on a node. */
import { Effect, Result } from "effect"
import { inUrl } from "../Addresses.ts"
import type { Node } from "../Cluster.ts"
import * as Steps from "../Steps.ts"

const content = "/var/lib/containerd/io.containerd.content.v1.content/blobs/sha256"

/** The most that an archive adds to the size of its only file, in bytes. */
const maxAddedByArchive = 4096

/** Names of a node's blobs that are layers with a file of this size, in bytes. */
const layersOf = Effect.fnUntraced(function*(node: Node, size: number) {
  const sizes = ["-size", `+${size}c`, "-size", `-${size + maxAddedByArchive}c`]
  const found = yield* node.run("find", content, "-type", "f", ...sizes, "-printf", String.raw`%f\n`)
  const names = found.split("\n").filter((name) => name !== "")
  yield* Steps.promise(names.length > 0, `${node.nodeName} has no layer of ${size} bytes`)
  return names
})

/** Changes two bytes of each of a node's layers with a file of this size, as a failing disk may. */
export const damage = Effect.fnUntraced(function*(node: Node, size: number) {
  for (const name of yield* layersOf(node, size)) {
    const into = `dd of=${content}/${name} bs=1 seek=${size >> 1} conv=notrunc status=none`
    yield* node.run("bash", "-c", String.raw`printf '\xff\xfe' | ${into}`)
  }
})

/**
 * Leaves a complete download of wrong bytes in a node's containerd, which keeps it for a day. containerd itself deletes the download
 * of a failed pull of the kubelet within 200 ms (measured).
 */
export const wrongDownload = Effect.fnUntraced(function*(node: Node) {
  const size = 2 ** 20
  const digest = `sha256:${"0".repeat(64)}`
  const ingest = `ctr --namespace k8s.io content ingest --expected-digest ${digest} --expected-size ${size}`
  const taken = yield* Effect.result(node.run("bash", "-c", `head -c ${size} /dev/zero | ${ingest} layer-${digest}`))
  yield* Steps.promise(Result.isFailure(taken), "containerd has taken wrong bytes")
})

/** Cuts a node's mirror off from the routers of the others, while the scope is open. */
export const withoutRouter = (node: Node) => {
  const rules = (change: "-I" | "-D") =>
    Effect.forEach(
      ["--dport", "--sport"],
      (port) =>
        node.run(
          node.address.includes(":") ? "ip6tables" : "iptables",
          change,
          "FORWARD",
          "-p",
          "tcp",
          port,
          "5001",
          "-j",
          "DROP"
        )
    )
  return Effect.acquireRelease(rules("-I"), () => Effect.ignore(rules("-D")))
}

/** Removes the mirror's hosts.toml from a node's containerd, while the scope is open. */
export const withoutHostsToml = (node: Node) => {
  const [mirrors, away] = ["/etc/containerd/certs.d/_default", "/etc/containerd/_default-away"]
  return Effect.acquireRelease(
    node.run("mv", mirrors, away),
    () => Effect.ignore(node.run("mv", away, mirrors))
  )
}

/** The header by which a node's containerd shows that it may ask mirrors. */
const authorizationOf = Effect.fnUntraced(function*(node: Node) {
  const text = yield* node.run("cat", "/etc/containerd/certs.d/_default/hosts.toml")
  const token = /"(Bearer [^"]+)"/.exec(text)?.[1]
  yield* Steps.promise(token !== undefined, `${node.nodeName} has no token in its hosts.toml`)
  return `authorization: ${token}`
})

/** Reads the same layer of a node's mirror slowly and many times at once, as peers do, while the scope is open. */
export const slowReaders = Effect.fnUntraced(function*(options: {
  readonly reader: Node
  readonly holder: Node
  /** The holder's mirror. */
  readonly address: string
  /** The size of the layer's file, in bytes. */
  readonly size: number
  readonly count: number
}) {
  const { address, count, holder, reader, size } = options
  const [name = ""] = yield* layersOf(holder, size)
  const url = `http://${inUrl(address)}:5000/v2/any/blobs/sha256:${name}`
  const token = yield* authorizationOf(reader)
  const slowly = ["-s", "-o", "/dev/null", "--limit-rate", "200k"]
  const read = reader.run("curl", ...slowly, "-H", "x-spegel-mirrored: true", "-H", token, url)
  yield* Effect.addFinalizer(() => Effect.ignore(reader.run("pkill", "-x", "curl")))
  yield* Effect.forEach(Array.from({ length: count }), () => Effect.forkScoped(Effect.ignore(read)))
})

/** Makes a mirror write many log lines while nobody reads them: containerd, which does, is stopped meanwhile. */
export const unreadLog = Effect.fnUntraced(function*(node: Node, address: string) {
  const requests = `http://${inUrl(address)}:5000/v2/${"a".repeat(200)}/blobs/sha256:${"0".repeat(60)}[1000-7999]`
  const token = yield* authorizationOf(node)
  const containerd = (signal: "STOP" | "CONT") => node.run("pkill", `-${signal}`, "-x", "containerd")
  return yield* Effect.acquireUseRelease(
    containerd("STOP"),
    () => node.run("curl", "-s", "-o", "/dev/null", "--max-time", "60", "-H", token, requests),
    () => Effect.ignore(containerd("CONT"))
  )
})
