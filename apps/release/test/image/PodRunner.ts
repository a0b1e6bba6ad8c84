/** Runs the containers of a pod as the kubelet would tell containerd to, with `ctr` in its place. */
import type { CommandFailed } from "@spegel-ts/testing/process/Command"
import { Effect, Schedule } from "effect"
import { mkdir } from "node:fs/promises"
import type { Host } from "./Hosts.ts"

interface SecurityContext {
  readonly runAsUser: number
  readonly runAsGroup: number
  readonly readOnlyRootFilesystem: boolean
  readonly allowPrivilegeEscalation: boolean
  readonly capabilities: { readonly drop: ReadonlyArray<string> }
}

/** What the chart's containers have. */
export interface Container {
  readonly name: string
  readonly image: string
  readonly args: ReadonlyArray<string>
  readonly securityContext: SecurityContext
  readonly resources: { readonly limits: { readonly memory: string } }
  readonly volumeMounts: ReadonlyArray<{
    readonly name: string
    readonly mountPath: string
    readonly readOnly?: boolean
    readonly mountPropagation?: string
  }>
}

export interface Pod {
  readonly securityContext: { readonly seccompProfile: { readonly type: string } }
  readonly initContainers: ReadonlyArray<Container>
  readonly containers: ReadonlyArray<Container>
  readonly volumes: ReadonlyArray<{
    readonly name: string
    readonly hostPath?: { readonly path: string; readonly type: string }
    readonly secret?: { readonly secretName: string }
  }>
}

export interface Node {
  readonly host: Host
  /** The image's entrypoint: `ctr` leaves it out where it is given arguments. */
  readonly entrypoint: ReadonlyArray<string>
  /** Directories with the files of Secrets, as the kubelet makes them, by the names of the Secrets. */
  readonly secrets: Readonly<Record<string, string>>
  readonly ctr: (...args: ReadonlyArray<string>) => Effect.Effect<string, CommandFailed>
}

/** Capabilities that containerd gives where none is dropped. */
const capabilities = (
  "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL " +
  "AUDIT_WRITE"
).split(" ")

const mebibytes = (quantity: string) => Number(/^(\d+)Mi$/.exec(quantity)?.[1]) * 1024 * 1024

/** The `ctr` flags that say what the pod says. Fails where the pod asks for something that is not run here. */
const flagsOf = (pod: Pod, { resources, securityContext, volumeMounts }: Container, { host, secrets }: Node) => {
  const { allowPrivilegeEscalation, capabilities: { drop }, readOnlyRootFilesystem } = securityContext
  const { seccompProfile } = pod.securityContext
  if (allowPrivilegeEscalation || drop.join() !== "ALL" || seccompProfile.type !== "RuntimeDefault") {
    throw new Error("a container that may do more than is checked here")
  }
  return [
    "--snapshotter=native",
    "--seccomp",
    `--read-only=${readOnlyRootFilesystem}`,
    `--user=${securityContext.runAsUser}:${securityContext.runAsGroup}`,
    ...capabilities.map((capability) => `--cap-drop=CAP_${capability}`),
    `--memory-limit=${mebibytes(resources.limits.memory)}`,
    `--with-ns=network:/run/netns/${host.namespace}`,
    ...volumeMounts.map(({ mountPath, mountPropagation, name, readOnly }) => {
      const volume = pod.volumes.find((volume) => volume.name === name)
      const source = volume?.hostPath?.path ?? secrets[volume?.secret?.secretName ?? ""]
      const propagation = mountPropagation === "HostToContainer" ? "rslave" : "rprivate"
      return `--mount=type=bind,src=${source},dst=${mountPath},options=rbind:${readOnly ? "ro" : "rw"}:${propagation}`
    })
  ]
}

/** runc has one list of containers for the whole machine. */
const idOf = ({ name }: Container, { host }: Node) => `${host.namespace}-${name}`

const argsOf = ({ args }: Container, { entrypoint, host }: Node) => [
  ...entrypoint,
  ...args.map((arg) => arg.replace("$(NODE_IP)", host.address).replace("$(NODE_NAME)", host.namespace))
]

/** Makes what the kubelet makes, and runs the init containers one after the other. */
export const prepare = Effect.fnUntraced(function*(node: Node, pod: Pod) {
  for (const { hostPath } of pod.volumes) {
    if (hostPath?.type !== "DirectoryOrCreate") continue
    yield* Effect.promise(() => mkdir(hostPath.path, { recursive: true, mode: 0o755 }))
  }
  for (const container of pod.initContainers) {
    const flags = flagsOf(pod, container, node)
    yield* node.ctr("run", "--rm", ...flags, container.image, idOf(container, node), ...argsOf(container, node))
  }
})

/** Creates the pod's container; gives its start, after which it runs until the scope is closed. */
export const create = Effect.fnUntraced(function*(node: Node, pod: Pod) {
  const container = pod.containers[0] ?? (yield* Effect.die(new Error("a pod without containers")))
  const name = idOf(container, node)
  yield* Effect.acquireRelease(
    node.ctr(
      "containers",
      "create",
      ...flagsOf(pod, container, node),
      container.image,
      name,
      ...argsOf(container, node)
    ),
    () => Effect.ignore(node.ctr("containers", "rm", name))
  )
  const state = Effect.map(
    node.ctr("tasks", "ls"),
    (list) => new RegExp(`^${name}\\s+(?<pid>\\d+)\\s+(?<status>\\w+)`, "m").exec(list)?.groups
  )
  return {
    start: Effect.acquireRelease(
      node.ctr("tasks", "start", "--detach", "--null-io", name),
      () => Effect.ignore(node.ctr("tasks", "rm", "--force", name))
    ),
    pid: Effect.map(state, (groups) => Number(groups?.["pid"])),
    /** Ends it as the kubelet does, and gives its exit code. */
    stop: Effect.gen(function*() {
      yield* node.ctr("tasks", "kill", "--signal", "SIGTERM", name)
      yield* state.pipe(Effect.repeat({
        schedule: Schedule.spaced("100 millis"),
        until: (groups) => groups?.["status"] === "STOPPED",
        times: 300
      }))
      // `ctr` ends with the code of the task that it removes.
      return yield* node.ctr("tasks", "rm", name).pipe(Effect.match({ onSuccess: () => 0, onFailure: () => 1 }))
    })
  }
})
