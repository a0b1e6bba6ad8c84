/**
 * A Kubernetes cluster of real kubelets on this machine: a control plane, a registry with TLS, and nodes that begin with
 * nothing, as new ones do. Runs in an isolated network (`NetworkNamespace.isolated`); all of it ends with the scope.
 */
import type { Version } from "@spegel-ts/testing/containerd/ContainerdPackages"
import * as NetworkNamespace from "@spegel-ts/testing/network/NetworkNamespace"
import * as Command from "@spegel-ts/testing/process/Command"
import * as TemporaryDirectory from "@spegel-ts/testing/TemporaryDirectory"
import { Data, type Duration, Effect, Schedule, type Scope } from "effect"
import { existsSync } from "node:fs"
import { mkdir, rm, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { type Addresses, inUrl } from "./Addresses.ts"
import * as Certificates from "./Certificates.ts"
import * as Machine from "./Machine.ts"
import * as Programs from "./Programs.ts"
import * as Steps from "./Steps.ts"
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

/** Issues the certificates of the control plane and the registry; gives the administrator's kubeconfig. */
const issueCertificates = Effect.fnUntraced(function*(authority: Authority, { api, machine }: Addresses) {
  const names = [
    ...[machine(numbersOf.controlPlane), "127.0.0.1", api].map((address) => `IP:${address}`),
    "DNS:kubernetes.default.svc",
    "DNS:kubernetes.default.svc.cluster.local"
  ]
  yield* authority.certificate("apiserver", { subject: "/CN=kube-apiserver", names: names.join(",") })
  yield* authority.certificate("upstream", {
    subject: `/CN=${Upstream.host}`,
    names: `DNS:${Upstream.host},IP:${machine(numbersOf.upstream)}`
  })
  yield* authority.serviceAccounts
  yield* authority.kubeconfig("controller-manager", "/CN=system:kube-controller-manager")
  yield* authority.kubeconfig("scheduler", "/CN=system:kube-scheduler")
  yield* authority.kubeconfig("coredns", "/O=system:masters/CN=coredns")
  yield* authority.kubeconfig("proxy", "/CN=system:kube-proxy")
  return yield* authority.kubeconfig("admin", "/O=system:masters/CN=admin")
})

type Authority = Effect.Success<ReturnType<typeof Certificates.make>>

/** Programs that act on the cluster as its administrator. */
const programsOf = (directory: string, admin: string) => {
  const program = (name: "kubectl" | "helm") => (args: ReadonlyArray<string>, input?: string) =>
    Command.run(join(Programs.directories.bin, name), args, {
      // helm writes the logs of hooks there.
      withErrors: name === "helm",
      environment: { KUBECONFIG: admin, HELM_CACHE_HOME: join(directory, "helm"), HOME: directory },
      ...(input === undefined ? {} : { input })
    })
  const kubectl = program("kubectl")
  return {
    kubectl,
    helm: program("helm"),
    apply: (...objects: ReadonlyArray<unknown>) =>
      kubectl(["apply", "-f", "-"], objects.map((object) => JSON.stringify(object)).join("\n---\n"))
  }
}

interface NodeFactory {
  readonly addresses: Addresses
  readonly authority: Authority
  readonly containerds: ReadonlyMap<Version, string>
  readonly directory: string
  readonly kubectl: ReturnType<typeof programsOf>["kubectl"]
  /** All machines, to which new nodes are added. */
  readonly machines: Array<Machine.Machine>
  /** The numbers of the nodes, by name. */
  readonly numbers: Map<string, number>
}

/** Adds the routes that the daemon of a network plugin would add: from each machine to the pods of each node. */
const addRoutes = Effect.fnUntraced(function*(
  { addresses, machines, numbers }: NodeFactory,
  machine: Machine.Machine,
  number: number
) {
  const { anywhere, podsOf } = addresses
  // The route leads nowhere: addresses of services need one until kube-proxy's rules replace them.
  yield* machine.ip("route", "add", anywhere, "via", addresses.machine(numbersOf.controlPlane))
  for (const other of machines) {
    yield* other.ip("route", "add", podsOf(number), "via", machine.address)
    const otherNumber = numbers.get(other.name)
    if (otherNumber !== undefined) yield* machine.ip("route", "add", podsOf(otherNumber), "via", other.address)
  }
})

const startNodeMachine = (
  { addresses, containerds, directory }: NodeFactory,
  { configPath = "/etc/containerd/certs.d", containerd, containerdSettings = "", kubeletFlags = [], name }: NodeOptions,
  number: number
) =>
  Machine.start({
    name,
    address: addresses.machine(numbersOf.nodes + number),
    prefix: addresses.prefix,
    script: "node.sh",
    directory,
    environment: {
      BIN: Programs.directories.bin,
      CNI: Programs.directories.cni,
      CONTAINERD: containerds.get(containerd) ?? "",
      VERSION: containerd,
      CONTROL_PLANE: addresses.machine(numbersOf.controlPlane),
      UPSTREAM: addresses.machine(numbersOf.upstream),
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

/** Starts a node and waits until Kubernetes has it, ready or not. */
const addNode = Effect.fnUntraced(function*(factory: NodeFactory, options: NodeOptions): Effect.fn.Return<
  Node,
  Command.CommandFailed | GaveUp,
  Scope.Scope
> {
  const { authority, directory, kubectl, machines, numbers } = factory
  const nodeName = `node-${options.name}`
  const number = numbers.size + 1
  numbers.set(options.name, number)
  yield* authority.kubeconfig(`kubelet-${options.name}`, `/O=system:nodes/CN=system:node:${nodeName}`)
  const machine = yield* startNodeMachine(factory, options, number)
  yield* addRoutes(factory, machine, number)
  machines.push(machine)
  yield* eventually(`${nodeName} is there`, "2 minutes", kubectl(["get", "node", nodeName]))
  // All disks are in memory: a dead node makes room.
  const makeRoom = Effect.promise(() =>
    rm(join(directory, options.name, "containerd"), { recursive: true, force: true })
  )
  return { ...machine, containerd: options.containerd, nodeName, kill: Effect.andThen(machine.kill, makeRoom) }
})

/** Starts the control plane and the registry; nodes are added. */
export const start = Effect.fnUntraced(function*({ addresses, upstreamBytesPerSecond }: ClusterOptions) {
  const { machine: addressOf, prefix } = addresses
  const controlPlaneAddress = addressOf(numbersOf.controlPlane)
  const containerds = yield* Programs.provide
  const directory = yield* TemporaryDirectory.withPrefix("cluster-")
  yield* NetworkNamespace.addAddress(`${addressOf(numbersOf.outside)}/${prefix}`, NetworkNamespace.bridge)

  const api = `https://${inUrl(controlPlaneAddress)}:6443`
  const pki = join(directory, "pki")
  yield* Effect.promise(() => mkdir(pki))
  const authority = yield* Certificates.make(pki, api)
  const admin = yield* issueCertificates(authority, addresses)
  const controlPlane = yield* Machine.start({
    name: "control-plane",
    address: controlPlaneAddress,
    prefix,
    script: "control-plane.sh",
    directory,
    environment: { BIN: Programs.directories.bin, URL: api, SERVICES: addresses.services }
  })
  const upstreamMachine = yield* Machine.start({
    name: "upstream",
    address: addressOf(numbersOf.upstream),
    prefix,
    script: "upstream.sh",
    directory,
    environment: { BYTES_PER_SECOND: String(upstreamBytesPerSecond) }
  })
  const upstream = Upstream.make(upstreamMachine, directory)
  const { apply, helm, kubectl } = programsOf(directory, admin)

  yield* eventually("the API server is ready", "2 minutes", kubectl(["get", "--raw", "/readyz"]))
  yield* apply(...initialObjects(addresses, controlPlaneAddress))
  const dnsAnswers = controlPlane.run("curl", "-sf", "http://127.0.0.1:8181/ready")
  yield* eventually("the cluster's DNS answers", "1 minute", dnsAnswers)
  yield* upstream.ready

  const machines = [controlPlane, upstreamMachine]
  const factory = { addresses, authority, containerds, directory, kubectl, machines, numbers: new Map() }
  const noDns = join(directory, "control-plane", "no-dns")
  return {
    directory,
    controlPlane,
    upstream,
    kubectl,
    helm,
    apply,
    addNode: (options: NodeOptions) => addNode(factory, options),
    /** Waits until pods can run on a node. */
    nodeReady: ({ nodeName }: Node) =>
      eventually(
        `${nodeName} is ready`,
        "2 minutes",
        kubectl(["wait", "--for=condition=Ready", `node/${nodeName}`, "--timeout=1s"]).pipe(
          // Kubernetes takes its own taint off a moment later.
          Effect.andThen(kubectl(["get", "node", nodeName, "-o", "jsonpath={.spec.taints[*].key}"])),
          Effect.flatMap((keys) =>
            Steps.promise(!keys.includes("node.kubernetes.io/not-ready"), `${nodeName} has the taints ${keys}`)
          )
        )
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
