/** The files that an installation changes on nodes, and an uninstall has to restore to the byte. */
import { Effect } from "effect"
import type { Node } from "./Cluster.ts"
import * as Steps from "./Steps.ts"

const mirrors = "/etc/containerd/certs.d"
const identity = "/var/lib/spegel"

/** A user's own configuration, in a style that no program writes. */
const ownHosts = `# Ours.
server = 'https://docker.io'


[host."https://cache.test"] # near
  capabilities=['pull']
`

/** Reads each path in containerd's directory of mirrors, with kind, mode, owner and content. */
const read = (node: Node) => {
  const paths = String.raw`find . -printf '%p %y %m %U:%G\n' | sort`
  return node.run("bash", "-c", `cd ${mirrors} && ${paths} && find . -type f -exec sha256sum {} + | sort`)
}

export const make = () => {
  const before = new Map<Node, string>()
  return {
    /** Gives a node without a mirror a configuration of its own, as users have one, and notes all files. */
    prepare: Effect.fnUntraced(function*(node: Node) {
      const directory = `${mirrors}/docker.io`
      const write =
        `mkdir -p ${directory} && printf %s "$0" >${directory}/hosts.toml && chmod 600 ${directory}/hosts.toml`
      yield* node.run("bash", "-c", write, ownHosts)
      before.set(node, yield* read(node))
    }),
    /** Fails unless the mirror has changed the files. */
    isChanged: Effect.fnUntraced(function*(node: Node) {
      yield* Steps.promise((yield* read(node)) !== before.get(node), `${node.nodeName} has nothing to restore`)
    }),
    /** Fails unless all files are what they were, to the byte, and no identity is left. */
    isRestored: Effect.fnUntraced(function*(node: Node) {
      const left = yield* node.run("find", identity, "!", "-type", "d")
      yield* Steps.promise(left === "", `left on ${node.nodeName}: ${left}`)
      const files = yield* read(node)
      yield* Steps.promise(files === before.get(node), `${node.nodeName} has ${files} and not ${before.get(node)}`)
    })
  }
}
