/**
 * A Kubernetes cluster of real kubelets on this machine: a control plane, a registry with TLS, and nodes that begin with
 * nothing, as new ones do. Runs in an isolated network (`NetworkNamespace.isolated`); all of it ends with the scope.
 */
import type { Version } from "@spegel-ts/testing/containerd/ContainerdPackages"
import * as NetworkNamespace from "@spegel-ts/testing/network/NetworkNamespace"
import * as Command from "@spegel-ts/testing/process/Command"
import { Data, type Duration, Effect, Schedule, type Scope } from "effect"
import { existsSync } from "node:fs"
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { type Addresses, inUrl } from "./Addresses.ts"
import * as Certificates from "./Certificates.ts"
import * as Machine from "./Machine.ts"
import * as Programs from "./Programs.ts"
import * as Upstream from "./Upstream.ts"

/** Numbers of the machines; nodes have numbers after the last one. */
const numbersOf = { outside: 1, controlPlane: 10, upstream: 20, nodes: 30 }

export interface NodeOptions {
  /** The node is called `node-NAME`. */
  readonly name: string
  readonly containerd: Version
  /** containerd's `config_path`. Default: `/etc/containerd/certs.d`. */
  readonly configPath?: string
  /** More lines of containerd's configuration. */
  readonly containerdSettings?: string
  readonly kubeletFlags?: ReadonlyArray<string>
}

export interface Node extends Machine.Machine {
  readonly containerd: Version
  /** Its name in Kubernetes. */
  readonly nodeName: string
}

/** A condition did not come true in time; `last` is the last failure. */
export class GaveUp extends Data.TaggedError("GaveUp")<{ readonly what: string; readonly last: string }> {
  override get message() {
    return `gave up waiting: ${this.what}; ${this.last}`
  }
}

/** Repeats `effect` until it succeeds; fails with `GaveUp` after `within`. */
export const eventually = <A, E extends { readonly message: string }, R>(
  what: string,
  within: Duration.Input,
  effect: Effect.Effect<A, E, R>
): Effect.Effect<A, GaveUp, R> =>
  Effect.suspend(() => {
    let last = "it was never tried to its end"
    return effect.pipe(
      Effect.tapError(({ message }) => Effect.sync(() => last = message)),
      Effect.retry(Schedule.spaced("250 millis")),
      Effect.timeoutOrElse({ duration: within, orElse: () => Effect.fail(new GaveUp({ what, last })) }),
      Effect.mapError((error) => error instanceof GaveUp ? error : new GaveUp({ what, last }))
    )
  })

/** Objects that the API server does not make itself: kube-proxy's role, and the DNS service, a process of the control plane. */
const initialObjects = ({ dns, family }: Addresses, controlPlaneAddress: string) => [
  {
    apiVersion: "rbac.authorization.k8s.io/v1",
    kind: "ClusterRoleBinding",
    metadata: { name: "cluster-kube-proxy" },
    roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: "system:node-proxier" },
    subjects: [{ apiGroup: "rbac.authorization.k8s.io", kind: "User", name: "system:kube-proxy" }]
  },
  {
    apiVersion: "v1",
    kind: "Service",
    metadata: { name: "kube-dns", namespace: "kube-system" },
    spec: {
      clusterIP: dns,
      ports: [{ name: "dns", port: 53, protocol: "UDP" }, { name: "dns-tcp", port: 53, protocol: "TCP" }]
    }
  },
  {
    apiVersion: "discovery.k8s.io/v1",
    kind: "EndpointSlice",
    metadata: { name: "kube-dns", namespace: "kube-system", labels: { "kubernetes.io/service-name": "kube-dns" } },
    addressType: family,
    endpoints: [{ addresses: [controlPlaneAddress] }],
    ports: [{ name: "dns", port: 53, protocol: "UDP" }, { name: "dns-tcp", port: 53, protocol: "TCP" }]
  }
]

export interface ClusterOptions {
  readonly addresses: Addresses
  /** The most that the registry sends over one connection. */
  readonly upstreamBytesPerSecond: number
}

/** Starts the control plane and the registry; nodes are added. */
export const start = Effect.fnUntraced(function*({ addresses, upstreamBytesPerSecond }: ClusterOptions) {
  const { machine: addressOf, prefix } = addresses
  const controlPlaneAddress = addressOf(numbersOf.controlPlane)
  const upstreamAddress = addressOf(numbersOf.upstream)
  const containerds = yield* Programs.provide
  const directory = yield* Effect.acquireRelease(
    Effect.promise(() => mkdtemp(join(tmpdir(), "cluster-"))),
    // A node that was killed may still be releasing a mount.
    (directory) => Effect.promise(() => rm(directory, { recursive: true, force: true, maxRetries: 5 }))
  )
  const pki = join(directory, "pki")
  yield* Effect.promise(() => mkdir(pki))
  yield* NetworkNamespace.addAddress(`${addressOf(numbersOf.outside)}/${prefix}`, NetworkNamespace.bridge)

  const api = `https://${inUrl(controlPlaneAddress)}:6443`
  const authority = yield* Certificates.make(pki, api)
  yield* authority.certificate(
    "apiserver",
    "/CN=kube-apiserver",
    `IP:${controlPlaneAddress},IP:127.0.0.1,IP:${addresses.api},DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local`
  )
  yield* authority.certificate("upstream", `/CN=${Upstream.host}`, `DNS:${Upstream.host},IP:${upstreamAddress}`)
  yield* authority.serviceAccounts
  const admin = yield* authority.kubeconfig("admin", "/O=system:masters/CN=admin")
  yield* authority.kubeconfig("controller-manager", "/CN=system:kube-controller-manager")
  yield* authority.kubeconfig("scheduler", "/CN=system:kube-scheduler")
  yield* authority.kubeconfig("coredns", "/O=system:masters/CN=coredns")
  yield* authority.kubeconfig("proxy", "/CN=system:kube-proxy")

  const controlPlane = yield* Machine.start({
    name: "control-plane",
    address: controlPlaneAddress,
    prefix,
    script: "control-plane.sh",
    directory,
    environment: {
      BIN: Programs.directories.bin,
      URL: api,
      SERVICES: addresses.services
    }
  })
  const upstreamMachine = yield* Machine.start({
    name: "upstream",
    address: upstreamAddress,
    prefix,
    script: "upstream.sh",
    directory,
    environment: { BYTES_PER_SECOND: String(upstreamBytesPerSecond) }
  })
  const upstream = Upstream.make(upstreamMachine, directory)

  const program = (name: "kubectl" | "helm") => (args: ReadonlyArray<string>, input?: string) =>
    Command.run(join(Programs.directories.bin, name), args, {
      // helm writes the logs of hooks there.
      withErrors: name === "helm",
      environment: { KUBECONFIG: admin, HELM_CACHE_HOME: join(directory, "helm"), HOME: directory },
      ...(input === undefined ? {} : { input })
    })
  const kubectl = program("kubectl")
  const apply = (...objects: ReadonlyArray<unknown>) =>
    kubectl(["apply", "-f", "-"], objects.map((object) => JSON.stringify(object)).join("\n---\n"))

  yield* eventually("the API server is ready", "2 minutes", kubectl(["get", "--raw", "/readyz"]))
  yield* apply(...initialObjects(addresses, controlPlaneAddress))
  yield* eventually(
    "the cluster's DNS answers",
    "1 minute",
    controlPlane.run("curl", "-sf", "http://127.0.0.1:8181/ready")
  )
  yield* upstream.ready

  const machines: Array<Machine.Machine> = [controlPlane, upstreamMachine]
  const numbers = new Map<string, number>()

  /** Starts a node and waits until Kubernetes has it, ready or not. */
  const addNode = Effect.fnUntraced(function*(options: NodeOptions): Effect.fn.Return<
    Node,
    Command.CommandFailed | GaveUp,
    Scope.Scope
  > {
    const number = numbers.size + 1
    numbers.set(options.name, number)
    const address = addressOf(numbersOf.nodes + number)
    yield* authority.kubeconfig(`kubelet-${options.name}`, `/O=system:nodes/CN=system:node:node-${options.name}`)
    const { configPath = "/etc/containerd/certs.d", containerdSettings = "", kubeletFlags = [] } = options
    const machine = yield* Machine.start({
      name: options.name,
      address,
      prefix,
      script: "node.sh",
      directory,
      environment: {
        BIN: Programs.directories.bin,
        CNI: Programs.directories.cni,
        CONTAINERD: containerds.get(options.containerd) ?? "",
        VERSION: options.containerd,
        CONTROL_PLANE: controlPlaneAddress,
        UPSTREAM: upstreamAddress,
        REGISTRY: Upstream.host,
        PODS: addresses.podsOf(number),
        ALL_PODS: addresses.pods,
        DNS: addresses.dns,
        ANYWHERE: addresses.anywhere,
        CONFIG_PATH: configPath,
        CONTAINERD_SETTINGS: containerdSettings,
        KUBELET_FLAGS: kubeletFlags.join(" ")
      }
    })
    // The route leads nowhere: addresses of services need one until kube-proxy's rules replace them.
    yield* machine.ip("route", "add", addresses.anywhere, "via", controlPlaneAddress)
    // The daemon of a network plugin would add the routes to each node's pods.
    for (const other of machines) {
      yield* other.ip("route", "add", addresses.podsOf(number), "via", address)
      const otherNumber = numbers.get(other.name)
      if (otherNumber !== undefined) {
        yield* machine.ip("route", "add", addresses.podsOf(otherNumber), "via", other.address)
      }
    }
    machines.push(machine)
    const nodeName = `node-${options.name}`
    yield* eventually(`${nodeName} is there`, "2 minutes", kubectl(["get", "node", nodeName]))
    return {
      ...machine,
      containerd: options.containerd,
      nodeName,
      // All disks are in memory: a dead node makes room.
      kill: Effect.andThen(
        machine.kill,
        Effect.promise(() => rm(join(directory, options.name, "containerd"), { recursive: true, force: true }))
      )
    }
  })

  const noDns = join(directory, "control-plane", "no-dns")
  return {
    directory,
    controlPlane,
    upstream,
    kubectl,
    helm: program("helm"),
    apply,
    addNode,
    /** Waits until pods can run on a node. */
    nodeReady: ({ nodeName }: Node) =>
      eventually(
        `${nodeName} is ready`,
        "2 minutes",
        kubectl(["wait", "--for=condition=Ready", `node/${nodeName}`, "--timeout=1s"])
      ),
    /** Stops the cluster's DNS while the scope is open. */
    withoutDns: Effect.acquireRelease(
      Effect.promise(() => writeFile(noDns, "")).pipe(
        Effect.andThen(Effect.ignore(controlPlane.run("pkill", "-x", "coredns")))
      ),
      () => Effect.promise(async () => existsSync(noDns) ? rm(noDns) : undefined)
    )
  }
})

export type Cluster = Effect.Success<ReturnType<typeof start>>
