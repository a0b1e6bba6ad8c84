/** Broken and good set-ups of a node, and what `spegel doctor` has to say of each. */
import * as ClientToken from "@spegel-ts/cluster-key/ClientToken"
import { generate } from "@spegel-ts/cluster-key/KeyRing"
import { ringOf } from "@spegel-ts/testing/ClusterKeys"
import * as LocalServer from "@spegel-ts/testing/network/LocalServer"
import { Effect, type Scope } from "effect"
import { chmod, chown, mkdir, rm, writeFile } from "node:fs/promises"
import { createServer } from "node:http"
import { createServer as createSocketServer } from "node:net"
import { dirname, join } from "node:path"
import type { ExaminedNode, Expected } from "./ExaminedNode.ts"

export interface SetUp {
  readonly name: string
  /** Breaks the node, and gives more flags of the command and a program that runs it. */
  readonly make: (node: ExaminedNode) => Effect.Effect<
    { readonly flags?: ReadonlyArray<string>; readonly wrapper?: ReadonlyArray<string> } | void,
    Error,
    Scope.Scope
  >
  readonly expected: (version: ExaminedNode["version"]) => Expected
}

const always = (expected: Expected) => () => expected
const proved: Expected = { result: "proved", checks: {} }

/** No check that needs containerd, where it does not answer. */
const noContainerd = (pattern: RegExp): Expected => ({
  result: "problem",
  checks: {
    socket: "problem",
    namespace: "skipped",
    content: "skipped",
    cri: "skipped",
    "config-path": "skipped",
    "pull-mode": "skipped",
    "hosts-toml": "skipped",
    canary: "skipped",
    layers: "skipped"
  },
  says: { socket: pattern }
})

/** containerd does not ask the mirror, for a reason in hosts.toml. */
const notAsked = (pattern: RegExp): Expected => ({
  result: "problem",
  checks: { "hosts-toml": "problem", canary: "problem" },
  says: { "hosts-toml": pattern, canary: /could not pull/ }
})

const writeHosts = (change: (text: string, node: ExaminedNode) => string) => (node: ExaminedNode) =>
  Effect.promise(async () => {
    const text = change(node.good.hostsToml, node)
    if (text === node.good.hostsToml) throw new Error("the file was not changed")
    await writeFile(node.hostsPath, text)
  })

const flags = (...flags: ReadonlyArray<string>) => Effect.succeed({ flags })

/** Runs a command as root that cannot open the files of others. */
const lacks = "-dac_override,-dac_read_search"
const withoutOverride = ["setpriv", `--bounding-set=${lacks}`, `--inh-caps=${lacks}`]

const sockets: ReadonlyArray<SetUp> = [
  {
    name: "no socket",
    make: () => flags("--containerd-sock=/nowhere/containerd.sock"),
    expected: always(noContainerd(/does not exist/))
  },
  {
    name: "a socket of another user",
    make: ({ node: { containerd: { socket } } }) =>
      Effect.gen(function*() {
        yield* Effect.promise(async () => {
          await chown(socket, 65_534, 65_534)
          await chmod(socket, 0o600)
        })
        yield* Effect.addFinalizer(() => Effect.promise(() => chown(socket, 0, 0)))
        return { wrapper: withoutOverride }
      }),
    // The key and the tokens are root's, as is the command.
    expected: always(noContainerd(/permission denied/))
  },
  {
    name: "a socket of something that does not answer",
    make: ({ directory }) =>
      Effect.gen(function*() {
        const path = join(directory, "silent.sock")
        yield* Effect.acquireRelease(
          Effect.callback<ReturnType<typeof createSocketServer>>((resume) => {
            const server = createSocketServer((socket) => socket.on("error", () => undefined).resume())
            server.listen(path, () => resume(Effect.succeed(server)))
          }),
          (server) => Effect.sync(() => server.close())
        )
        return { flags: [`--containerd-sock=${path}`] }
      }),
    expected: always(noContainerd(/does not answer as containerd does/))
  },
  {
    name: "the socket of a containerd that was killed",
    make: ({ directory }) =>
      Effect.gen(function*() {
        const path = join(directory, "left.sock")
        yield* Effect.promise(() => writeFile(path, ""))
        return { flags: [`--containerd-sock=${path}`] }
      }),
    expected: always(noContainerd(/nothing listens|not a stream socket/))
  }
]

const places: ReadonlyArray<SetUp> = [
  {
    name: "another namespace",
    make: () => flags("--containerd-namespace=moby"),
    expected: always({ result: "problem", checks: { namespace: "problem" }, says: { namespace: /moby/ } })
  },
  {
    name: "the content directory of another containerd",
    make: ({ directory }) => flags(`--containerd-content-path=${directory}`),
    expected: always({
      result: "problem",
      checks: { content: "problem" },
      says: { content: /lacks what containerd has/ }
    })
  }
]

const hosts: ReadonlyArray<SetUp> = [
  {
    name: "no directory for the registry",
    make: ({ hostsPath }) => Effect.promise(() => rm(dirname(hostsPath), { recursive: true })),
    expected: always(notAsked(/has no directory for/))
  },
  {
    name: "an empty directory that hides _default",
    make: ({ good, hostsPath, node }) =>
      Effect.promise(async () => {
        await rm(hostsPath)
        await mkdir(join(node.certs, "_default"), { recursive: true })
        await writeFile(join(node.certs, "_default", "hosts.toml"), good.hostsToml)
      }),
    expected: always(notAsked(/hides _default/))
  },
  {
    name: "a file without the mirror",
    make: writeHosts((_, { upstream }) => `[host."${upstream.url}"]\ncapabilities = ["pull", "resolve"]\n`),
    expected: always(notAsked(/names no mirror that answers: .* is something that is not this mirror/))
  },
  {
    name: "the mirror's address with a wrong port",
    make: writeHosts((text, { ports }) => text.replaceAll(`:${ports.registry}`, ":26")),
    expected: always(notAsked(/nothing answers at http:\/\/127\.0\.0\.2:26/))
  },
  {
    name: "a file that containerd refuses",
    make: writeHosts((text) => text.replace(`["pull", "resolve"]`, `["pull", "everything"]`)),
    expected: always(notAsked(/containerd refuses .*capabilities/))
  },
  {
    name: "a file that is not TOML",
    make: writeHosts((text) => `${text}\n[host."half`),
    expected: always(notAsked(/containerd refuses/))
  },
  {
    name: "a mirror that containerd may not pull from",
    make: writeHosts((text) => text.replace(`["pull", "resolve"]`, `["resolve"]`)),
    expected: always(notAsked(/lacks the capability pull/))
  },
  {
    name: "another host before the mirror, which is down",
    make: writeHosts((text) => text.replace("[host.", `[host."http://127.0.0.9:26"]\n[host.`)),
    expected: always({
      result: "proved",
      checks: { "hosts-toml": "warning" },
      says: { "hosts-toml": /asks http:\/\/127\.0\.0\.9:26 .* before the mirror/ }
    })
  },
  {
    name: "a registry that the mirror leaves to upstream",
    make: ({ good, node }) =>
      Effect.promise(async () => {
        await mkdir(join(node.certs, "127.0.0.98_5000_"), { recursive: true })
        await writeFile(join(node.certs, "127.0.0.98_5000_", "hosts.toml"), good.hostsToml)
        return { flags: ["--mirrored-registries=http://127.0.0.98:5000"] }
      }),
    expected: always({ result: "problem", checks: { canary: "problem" } })
  },
  {
    name: "a registry that nobody has configured",
    make: () => flags("--mirrored-registries=http://127.0.0.99:5000"),
    expected: always(notAsked(/has no directory for 127\.0\.0\.99:5000/))
  }
]

const tokenOf = (node: ExaminedNode, name: string) => node.key.tokenOf(name)

const trust: ReadonlyArray<SetUp> = [
  {
    name: "containerd has no token",
    make: writeHosts((text) => text.replace(/.*Bearer .*\n/, "").replace(/^\[host\.[^\]]*header\]\n/m, "")),
    expected: always(notAsked(/has no token of the cluster key/))
  },
  {
    name: "containerd has the token of another cluster",
    make: writeHosts((text, node) =>
      text.replace(tokenOf(node, "node-1"), ClientToken.make(ringOf(generate()), "node-1") ?? "")
    ),
    expected: always(notAsked(/has a token of another cluster key/))
  },
  {
    name: "containerd has the token of another node",
    make: writeHosts((text, node) => text.replace(tokenOf(node, "node-1"), tokenOf(node, "node-7"))),
    expected: always(notAsked(/has the token of the node node-7, but the mirror's is node-1/))
  },
  {
    name: "a key file that is gone",
    make: ({ directory }) => flags(`--cluster-key-file=${join(directory, "nothing")}`),
    // Nothing can be said of the token, and the mirror shows its peers to this host.
    expected: always({ result: "problem", checks: { "cluster-key": "problem" }, says: { "cluster-key": /nothing/ } })
  }
]

const ports: ReadonlyArray<SetUp> = [
  {
    name: "something else on the registry's port",
    make: () =>
      Effect.gen(function*() {
        const server = createServer((_, response) => response.writeHead(404, { server: "nginx" }).end())
        const port = yield* LocalServer.listen(server)
        return { flags: [`--registry-addr=127.0.0.1:${port}`] }
      }),
    expected: always({
      result: "problem",
      checks: { "registry-port": "problem", ready: "skipped", peers: "skipped", clock: "skipped" },
      says: { "registry-port": /status 404, nginx/ }
    })
  },
  {
    name: "no mirror on the registry's port",
    make: () => flags("--registry-addr=127.0.0.9:26"),
    expected: always({
      result: "problem",
      checks: { "registry-port": "problem", ready: "skipped", peers: "skipped", clock: "skipped" },
      says: { "registry-port": /ECONNREFUSED/ }
    })
  },
  {
    name: "no router on its port",
    make: ({ node, ports }) => flags(`--router-addr=${node.address}:${ports.metrics}`),
    expected: always({ result: "problem", checks: { "router-port": "problem" } })
  }
]

/** Set-ups that need no other containerd. */
export const withoutRestart: ReadonlyArray<SetUp> = [
  { name: "a good node", make: () => Effect.void, expected: always(proved) },
  {
    name: "hosts.toml files that cannot be seen from here, as in a pod",
    make: () => flags("--containerd-registry-config-path=/nowhere", "--containerd-config=/nowhere/config.toml"),
    // containerd 1.x says where it looks.
    expected: (version) => ({
      result: "proved",
      checks: {
        "hosts-toml": "skipped",
        ...version === "2.1"
          ? { "config-path": "skipped", "pull-mode": "skipped" }
          : { "config-path": "warning" }
      }
    })
  },
  {
    name: "hosts.toml files with a token, seen by a user who may not read them",
    make: ({ hostsPath }) =>
      Effect.gen(function*() {
        yield* Effect.promise(() => chown(hostsPath, 65_534, 65_534))
        yield* Effect.addFinalizer(() => Effect.promise(() => chown(hostsPath, 0, 0)))
        return { wrapper: withoutOverride }
      }),
    expected: always({
      result: "proved",
      checks: { "hosts-toml": "skipped" },
      says: { "hosts-toml": /only root may read/ }
    })
  },
  ...sockets,
  ...places,
  ...hosts,
  ...trust,
  ...ports
]
