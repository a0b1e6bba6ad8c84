/** Examines a node: containerd, its configuration, the mirror, its peers, and at last a pull that only the mirror can serve. */
import * as ClusterKeyFile from "@spegel-ts/cluster-key/ClusterKeyFile"
import type { KeyRing } from "@spegel-ts/cluster-key/KeyRing"
import * as AppliedHosts from "@spegel-ts/containerd/AppliedHosts"
import { ContainerdClient, CriPlugin } from "@spegel-ts/containerd/ContainerdClient"
import { Effect, Option, type Redacted } from "effect"
import { type ListenAddress, localUrl, print } from "../cli/ListenAddress.ts"
import type { PeerAuthChoice } from "../settings/TrustSettings.ts"
import * as CanaryPull from "./CanaryPull.ts"
import { about, type Check, type CheckName, isProved, names, problem, skipped } from "./Check.ts"
import * as ConfigChecks from "./ConfigChecks.ts"
import * as ContainerdChecks from "./ContainerdChecks.ts"
import * as HostsChecks from "./HostsChecks.ts"
import * as MirrorChecks from "./MirrorChecks.ts"
import type { Answerer } from "./MirrorProbe.ts"
import * as MirrorProbe from "./MirrorProbe.ts"
import * as PeerChecks from "./PeerChecks.ts"

export interface DoctorOptions {
  readonly containerdSock: string
  readonly containerdNamespace: string
  readonly containerdContentPath: string
  /** containerd's configuration file; empty if it is out of reach. */
  readonly containerdConfig: string
  readonly containerdRegistryConfigPath: string
  /** Hosts of the mirrored registries; empty for all. */
  readonly mirroredRegistries: ReadonlyArray<string>
  readonly registryAddr: ListenAddress
  readonly routerAddr: ListenAddress
  readonly metricsAddr: ListenAddress
  readonly peerAuth: PeerAuthChoice
  /** The name in this node's token. */
  readonly nodeName: string
  /** Makes this node's token; none without a cluster key. */
  readonly token: Effect.Effect<Option.Option<Redacted.Redacted>>
}

export interface Examination {
  /** containerd's version; undefined if it does not answer. */
  readonly containerd: string | undefined
  /** In the order of `names`. */
  readonly checks: ReadonlyArray<Check>
}

/** At most this many registries are checked. */
const maxRegistries = 20

/** Turns an unexpected failure into a problem of that check, so that the examination goes on. */
const guarded = <E extends { readonly message: string }>(
  name: CheckName,
  check: Effect.Effect<Check, E>
): Effect.Effect<Check> => Effect.catch(check, ({ message }) => Effect.succeed(problem(name, message)))

/** The registries to check: those that are mirrored, or where all are, docker.io and those with a directory of their own. */
const registriesOf = ({ containerdRegistryConfigPath, mirroredRegistries }: DoctorOptions) =>
  mirroredRegistries.length > 0
    ? Effect.succeed(mirroredRegistries.slice(0, maxRegistries))
    : AppliedHosts.registries(containerdRegistryConfigPath).pipe(
      Effect.orElseSucceed((): ReadonlyArray<string> => []),
      Effect.map((found) => [...new Set(["docker.io", ...found])].slice(0, maxRegistries))
    )

/** The keys of the file, or why they cannot be read; none where nobody proves anything. */
const keysOf = ({ peerAuth }: DoctorOptions): Effect.Effect<Option.Option<KeyRing | string>> =>
  peerAuth.mode === "off"
    ? Effect.succeedNone
    : ClusterKeyFile.load(peerAuth.path).pipe(
      Effect.catch(({ message }) => Effect.succeed(message)),
      Effect.asSome
    )

const examineMirror = Effect.fnUntraced(
  function*(options: DoctorOptions, mirror: Answerer, keys: Option.Option<KeyRing | string>) {
    const { metricsAddr, peerAuth, registryAddr, routerAddr } = options
    return [
      MirrorChecks.registryPort(mirror, registryAddr),
      yield* MirrorChecks.routerPort(routerAddr),
      mirror._tag === "Mirror"
        ? yield* MirrorChecks.ready(localUrl(registryAddr))
        : skipped("ready", "the mirror does not answer"),
      MirrorChecks.clusterKey({ answerer: mirror, choice: peerAuth, keys }),
      ...yield* PeerChecks.check({
        metricsUrl: localUrl(metricsAddr),
        token: yield* options.token,
        isProving: peerAuth.mode !== "off",
        mirror
      })
    ]
  }
)

/** A pull that fails can take half a minute: after so many, no further one is tried. */
const maxFailedPulls = 3

/** One after another: all pull the same image, and removing it removes it for all. */
const pullCanaries = Effect.fnUntraced(
  function*(client: typeof ContainerdClient.Service, cri: CriPlugin, registries: ReadonlyArray<string>) {
    const pulled: Array<CanaryPull.Pulled> = []
    for (const registry of registries) {
      const failed = pulled.filter(({ check }) => check.verdict === "problem").length
      const { check, keptLayer } = failed < maxFailedPulls
        ? yield* CanaryPull.check(client, { cri, registry })
        : { check: skipped("canary", `${failed} pulls have failed already`), keptLayer: Option.none<boolean>() }
      pulled.push({ check: about(registry, check), keptLayer })
    }
    return pulled
  }
)

const examineContainerd = Effect.fnUntraced(
  function*(
    client: typeof ContainerdClient.Service,
    version: string,
    options: DoctorOptions,
    keys: Option.Option<KeyRing>
  ) {
    const { containerdConfig, containerdContentPath, containerdNamespace, containerdRegistryConfigPath } = options
    const cri = yield* client.criPlugin.pipe(
      Effect.catch(({ message }) => Effect.succeed(CriPlugin.Failed({ reason: message })))
    )
    const hasCri = cri._tag !== "Missing"
    const known = yield* ConfigChecks.load(client, { path: containerdConfig, containerd: version, hasCri })
    const registries = yield* registriesOf(options)
    const canaries = yield* pullCanaries(client, cri, registries)
    const kept = canaries.flatMap(({ keptLayer }) => Option.toArray(keptLayer))
    const hosts = yield* Effect.forEach(canaries, ({ check: canary }) =>
      Effect.map(
        HostsChecks.check(canary.subject, {
          configPath: containerdRegistryConfigPath,
          containerd: version,
          keys,
          nodeName: options.nodeName,
          registryAddr: print(options.registryAddr)
        }),
        (check) => about(canary.subject, isProved(canary) ? HostsChecks.refuted(check) : check)
      ))
    const configPath = ConfigChecks.configPath(known, containerdRegistryConfigPath)
    const noCri = (name: CheckName) => skipped(name, "only the CRI plugin reads this setting, and it does not run")
    return [
      ContainerdChecks.socketAnswers(version, options.containerdSock),
      yield* guarded("namespace", ContainerdChecks.namespace(client, { hasCri, name: containerdNamespace })),
      yield* guarded("content", ContainerdChecks.content(client, containerdContentPath)),
      ContainerdChecks.cri(cri),
      hasCri
        ? canaries.some(({ check }) => isProved(check)) ? ConfigChecks.refuted(configPath) : configPath
        : noCri("config-path"),
      hasCri ? ConfigChecks.pullMode(known) : noCri("pull-mode"),
      ...hosts,
      ...canaries.map(({ check }) => check),
      hasCri ? ConfigChecks.layers(Option.some(known), kept[0]) : noCri("layers")
    ]
  }
)

/** The checks that need containerd, where it does not answer. */
const withoutContainerd = (socket: Check): ReadonlyArray<Check> => [
  socket,
  ...(["namespace", "content", "cri", "config-path", "pull-mode", "hosts-toml", "canary", "layers"] as const).map((
    name
  ) => skipped(name, "containerd does not answer"))
]

/** Runs all checks. It changes nothing but for the canary, which it removes again. */
export const examine = Effect.fn("Doctor.examine")(function*(options: DoctorOptions) {
  const { containerdNamespace: namespace, containerdSock: socket } = options
  const keys = yield* keysOf(options)
  const ring = Option.filter(keys, (keys) => typeof keys !== "string")
  const mirror = yield* MirrorProbe.ask(localUrl(options.registryAddr))
  const onMirror = yield* examineMirror(options, mirror, keys)
  const onContainerd = yield* Effect.gen(function*() {
    const client = yield* ContainerdClient
    const version = yield* client.version
    return { containerd: version, checks: yield* examineContainerd(client, version, options, ring) }
  }).pipe(
    Effect.provide(ContainerdClient.layer({ socket, socketSetting: "--containerd-sock", namespace })),
    Effect.catchTags({
      ContainerdUnavailable: (error) =>
        Effect.succeed({ containerd: undefined, checks: withoutContainerd(ContainerdChecks.socketFails(error)) }),
      ContainerdFailed: ({ message }) =>
        Effect.succeed({ containerd: undefined, checks: withoutContainerd(problem("socket", message)) })
    })
  )
  const checks = [...onContainerd.checks, ...onMirror]
  return {
    containerd: onContainerd.containerd,
    checks: checks.toSorted((one, other) => names.indexOf(one.name) - names.indexOf(other.name))
  } satisfies Examination
})
