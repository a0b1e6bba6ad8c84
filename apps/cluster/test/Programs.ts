/**
 * The programs of a cluster: Kubernetes, CoreDNS, helm and the network plugins from pinned Go modules, containerd of three
 * versions from Debian. Built once (15 to 30 minutes on two cores) and kept in the user's cache.
 */
import * as ContainerdPackages from "@spegel-ts/testing/containerd/ContainerdPackages"
import * as Prerequisite from "@spegel-ts/testing/kubernetes/Prerequisite"
import * as Command from "@spegel-ts/testing/process/Command"
import { Console, Data, Effect } from "effect"
import { existsSync } from "node:fs"
import { mkdir } from "node:fs/promises"
import { homedir } from "node:os"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"

/** The first version whose NodePort prefers the pod of the same node, and that takes containerd 1.6, 1.7 and 2.1. */
export const kubernetesVersion = "1.34.4"

const source = fileURLToPath(new URL("../programs", import.meta.url))

/** Another version has another directory. */
const cache = join(
  process.env["XDG_CACHE_HOME"] || join(homedir(), ".cache"),
  "spegel-ts",
  `kubernetes-${kubernetesVersion}`
)

/** The directories with the programs. */
export const directories = { bin: join(cache, "bin"), cni: join(cache, "cni") }

interface Program {
  readonly name: string
  /** The directory of the Go module that pins the program and its dependencies by go.sum. */
  readonly module: string
  readonly package: string
  readonly directory: string
}

const cniPackage = "github.com/containernetworking/plugins/plugins"

const programs: ReadonlyArray<Program> = [
  ...["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "kubectl"].map((
    name
  ) => ({
    name,
    module: "kubernetes",
    package: `k8s.io/kubernetes/cmd/${name}`,
    directory: directories.bin
  })),
  { name: "coredns", module: "coredns", package: ".", directory: directories.bin },
  { name: "pause", module: "pause", package: ".", directory: directories.bin },
  { name: "helm", module: "helm", package: "helm.sh/helm/v3/cmd/helm", directory: directories.bin },
  ...["main/bridge", "main/loopback", "ipam/host-local", "meta/portmap"].map((path) => ({
    name: path.slice(path.indexOf("/") + 1),
    module: "cni",
    package: `${cniPackage}/${path}`,
    directory: directories.cni
  }))
]

const debian = [
  "containerd",
  "runc",
  "docker-registry",
  "skopeo",
  "nginx",
  "etcd",
  "ip",
  "iptables",
  "conntrack",
  "openssl",
  "curl",
  "prometheus"
]

/** This machine lacks something that a cluster needs; `reason` says what to install. */
export class PrerequisiteMissing extends Data.TaggedError("PrerequisiteMissing")<{ readonly reason: string }> {
  override get message() {
    return this.reason
  }
}

const inPath = (program: string) =>
  Prerequisite.inPath(program, { PATH: [process.env["PATH"] ?? "", "/usr/sbin", "/sbin"].join(":") })

const versionFlags = () => {
  const [major = "", minor = ""] = kubernetesVersion.split(".")
  const base = "k8s.io/component-base/version"
  return [
    `-X ${base}.gitVersion=v${kubernetesVersion}`,
    `-X ${base}.gitMajor=${major}`,
    `-X ${base}.gitMinor=${minor}`,
    `-X ${base}.gitTreeState=clean`
  ].join(" ")
}

const compile = Effect.fnUntraced(function*({ directory, module, name, package: path }: Program) {
  const target = join(directory, name)
  if (existsSync(target)) return
  if (!inPath("go")) return yield* new PrerequisiteMissing({ reason: `needs go 1.25 or later, to build ${name}` })
  yield* Console.log(`building ${name}`)
  yield* Effect.promise(() => mkdir(dirname(target), { recursive: true }))
  const flags = `-s -w${module === "kubernetes" ? ` ${versionFlags()}` : ""}`
  yield* Command.run("go", ["build", "-mod=readonly", "-trimpath", "-ldflags", flags, "-o", target, path], {
    cwd: join(source, module),
    environment: { CGO_ENABLED: "0", GOFLAGS: "-buildvcs=false" }
  })
})

/** Builds the programs that are not in the cache yet; gives the directory of each version of containerd. */
export const provide = Effect.gen(function*() {
  if (process.getuid?.() !== 0) return yield* new PrerequisiteMissing({ reason: "needs root, for namespaces" })
  const lacking = debian.filter((program) => !inPath(program))
  if (lacking.length > 0) {
    return yield* new PrerequisiteMissing({ reason: `needs ${lacking.join(", ")} from Debian's packages` })
  }
  yield* Effect.forEach(programs, compile, { discard: true })
  const fetched = yield* Effect.forEach(ContainerdPackages.versions, ContainerdPackages.fetch)
  return new Map(fetched.map(({ containerd, version }) => [version, dirname(containerd)]))
})
