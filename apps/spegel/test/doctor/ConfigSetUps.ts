/** Configurations of containerd, and what `spegel doctor` has to say of each. containerd is restarted for each. */
import { Effect } from "effect"
import { mkdir, writeFile } from "node:fs/promises"
import { join } from "node:path"
import type { ExaminedNode, Expected } from "./ExaminedNode.ts"
import type { SetUp } from "./SetUps.ts"

type Version = ExaminedNode["version"]

const proved: Expected = { result: "proved", checks: {} }

/** containerd does not read hosts.toml. */
const unread = (pattern: RegExp): Expected => ({
  result: "problem",
  checks: { "config-path": "problem", canary: "problem" },
  says: { "config-path": pattern }
})

const oldKey = `plugins."io.containerd.grpc.v1.cri"`
const newKey = `plugins."io.containerd.cri.v1.images"`

const rewrite = (change: (text: string, node: ExaminedNode) => string) => (node: ExaminedNode) => {
  const text = change(node.good.configToml, node)
  return text === node.good.configToml ? Effect.die(new Error("nothing was changed")) : node.configure(text)
}

const pathOf = ({ node }: ExaminedNode) => `config_path = "${node.certs}"`

const platform = `linux/${process.arch === "x64" ? "amd64" : process.arch}`

/** A configuration in version 3 of its format, which containerd 2.x writes. The transfer service needs to know the snapshotter. */
const version3 = (lines: string) =>
  `version = 3\noom_score = 0\n[plugins."io.containerd.grpc.v1.cri"]\nstream_server_port = "0"\n` +
  `[[plugins."io.containerd.transfer.v1.local".unpack_config]]\nplatform = "${platform}"\nsnapshotter = "native"\n` +
  `[${newKey}]\nsnapshotter = "native"\n${lines}\n`

const isTwo = (version: Version) => version === "2.1"

const everywhere: ReadonlyArray<SetUp> = [
  {
    name: "config_path is unset",
    make: rewrite((text, node) => text.replace(pathOf(node), `config_path = ""`)),
    expected: () => unread(/set config_path under/)
  },
  {
    name: "config_path is another directory",
    make: rewrite((text, node) => text.replace(pathOf(node), `config_path = "/etc/other/certs.d"`)),
    expected: () => unread(/config_path is \/etc\/other\/certs\.d/)
  },
  {
    name: "config_path has two directories",
    make: rewrite((text, node) => text.replace(pathOf(node), `config_path = "${node.node.certs}:/etc/docker/certs.d"`)),
    expected: (version) =>
      isTwo(version) ? unread(/names several directories, of which containerd 2\.1 and later read none/) : {
        result: "proved",
        checks: { "config-path": "warning" },
        says: { "config-path": /2\.1 and later would not use this mirror/ }
      }
  },
  {
    name: "inline mirrors beside config_path",
    make: rewrite((text) =>
      `${text}\n[${oldKey}.registry.mirrors."registry.example"]\nendpoint = ["http://127.0.0.1:26"]\n`
    ),
    expected: () => ({
      result: "problem",
      checks: { cri: "problem", "config-path": "problem", canary: "skipped" },
      says: { cri: /mirrors.*config_path/, "config-path": /remove the inline mirrors/ }
    })
  },
  {
    name: "inline mirrors in place of config_path",
    make: rewrite((text, node) =>
      text.replace(pathOf(node), "") +
      `\n[${oldKey}.registry.mirrors."registry.example"]\nendpoint = ["http://127.0.0.1:26"]\n`
    ),
    expected: () => unread(/replace the inline mirrors/)
  },
  {
    name: "layers are discarded",
    make: rewrite((text) =>
      text.replace("discard_unpacked_layers = false", "discard_unpacked_layers = true") +
      `\n[${newKey}]\ndiscard_unpacked_layers = true\n`
    ),
    expected: () => ({ result: "problem", checks: { layers: "problem" }, says: { layers: /discards layers/ } })
  },
  {
    name: "no CRI plugin, as for nerdctl alone",
    make: rewrite(() => `version = 2\noom_score = 0\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n`),
    expected: () => ({
      result: "not proved",
      checks: {
        cri: "skipped",
        "config-path": "skipped",
        "pull-mode": "skipped",
        canary: "skipped",
        layers: "skipped"
      },
      says: { canary: /no CRI plugin/ }
    })
  },
  {
    name: "config_path in an imported file",
    make: (node) =>
      Effect.gen(function*() {
        const imported = join(node.directory, "conf.d")
        yield* Effect.promise(async () => {
          await mkdir(imported, { recursive: true })
          await writeFile(join(imported, "mirror.toml"), node.good.configToml.replace("oom_score = 0\n", ""))
        })
        yield* node.configure(`version = 2\noom_score = 0\nimports = ["${imported}/*.toml"]\n`)
      }),
    expected: () => proved
  },
  {
    name: "config_path is right in the file, but containerd was not restarted",
    make: (node) =>
      Effect.gen(function*() {
        yield* rewrite((text) => text.replace(pathOf(node), `config_path = ""`))(node)
        yield* Effect.promise(() => writeFile(node.configPath, node.good.configToml))
      }),
    // 2.x does not report what it runs with: only the canary shows it.
    expected: (version) =>
      isTwo(version)
        ? { result: "problem", checks: { canary: "problem" } }
        : unread(/containerd runs with what it read at its start -> restart containerd/)
  },
  {
    name: "config_path is gone from the file, but containerd was not restarted",
    make: (node) =>
      Effect.promise(() => writeFile(node.configPath, node.good.configToml.replace(pathOf(node), `config_path = ""`))),
    expected: () => ({
      result: "proved",
      checks: { "config-path": "warning" },
      says: { "config-path": /set config_path under .* before containerd is restarted/ }
    })
  },
  {
    name: "config_path is unset, and the file is out of sight, as in a pod",
    make: (node) =>
      Effect.as(rewrite((text) => text.replace(pathOf(node), `config_path = ""`))(node), {
        flags: ["--containerd-config=/nowhere/config.toml"]
      }),
    expected: (version) =>
      isTwo(version)
        ? {
          result: "problem",
          checks: { "config-path": "skipped", "pull-mode": "skipped", canary: "problem", layers: "skipped" },
          says: { "config-path": /does not report its configuration, and \/nowhere\/config\.toml does not exist here/ }
        }
        : unread(/set config_path under/)
  },
  {
    name: "a good node whose file is out of sight, as in a pod",
    make: () => Effect.succeed({ flags: ["--containerd-config=/nowhere/config.toml"] }),
    expected: (version) =>
      isTwo(version) ? { result: "proved", checks: { "config-path": "skipped", "pull-mode": "skipped" } } : proved
  }
]

const onlyOne: ReadonlyArray<SetUp> = [
  {
    name: "config_path under the key of containerd 2",
    make: rewrite((text, node) => `${text.replace(pathOf(node), "")}\n[${newKey}.registry]\n${pathOf(node)}\n`),
    expected: () => unread(/ignores \[plugins\."io\.containerd\.cri\.v1\.images"\.registry\]/)
  }
]

const onlyTwo: ReadonlyArray<SetUp> = [
  {
    name: "version 3 with config_path under the key of containerd 1",
    make: rewrite((_, node) => `${version3("")}[${oldKey}.registry]\n${pathOf(node)}\n`),
    expected: () => unread(/ignores \[plugins\."io\.containerd\.grpc\.v1\.cri"\.registry\]/)
  },
  {
    name: "version 3 with config_path for the transfer service alone",
    make: rewrite((_, node) => `${version3("")}[plugins."io.containerd.transfer.v1.local"]\n${pathOf(node)}\n`),
    expected: () => unread(/set config_path under/)
  },
  {
    name: "a good version 3",
    make: rewrite((_, node) => version3(`[${newKey}.registry]\n${pathOf(node)}`)),
    expected: () => proved
  },
  {
    name: "two directories and use_local_image_pull",
    make: rewrite((_, node) =>
      version3(
        `use_local_image_pull = true\n[${newKey}.registry]\nconfig_path = "${node.node.certs}:/etc/docker/certs.d"`
      )
    ),
    expected: () => ({ result: "proved", checks: {}, says: { "pull-mode": /by itself/ } })
  }
]

/** The configurations to try with a version of containerd. */
export const withRestart = (version: Version): ReadonlyArray<SetUp> => [
  ...everywhere,
  ...isTwo(version) ? onlyTwo : onlyOne
]
