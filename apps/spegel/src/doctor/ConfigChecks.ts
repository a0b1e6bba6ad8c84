/**
 * Checks of containerd's configuration. containerd 1.x reports its own; 2.x does not, so there the file decides. Where neither can
 * be had, the canary and its layers show what the configuration comes to.
 */
import * as ConfigFindings from "@spegel-ts/containerd/ConfigFindings"
import type { ContainerdClient } from "@spegel-ts/containerd/ContainerdClient"
import * as ContainerdConfig from "@spegel-ts/containerd/ContainerdConfig"
import { Effect, Option, Schedule } from "effect"
import { existsSync } from "node:fs"
import { type Check, ok, problem, skipped, warning } from "./Check.ts"

type Config = ContainerdConfig.ContainerdConfig

/** What is known of containerd's configuration. */
export interface KnownConfig {
  /** containerd's version, as it reports it. */
  readonly containerd: string
  /** What containerd reports. */
  readonly reported: Option.Option<Config>
  /** What the file says; it counts only once containerd was restarted. */
  readonly file: Option.Option<Config>
  readonly path: string
  /** Why there is no `file`. */
  readonly reason: string
}

/** The CRI plugin starts later than containerd. */
const maxStartTries = 40

/** Asks containerd, and reads the file at `path`. */
export const load = Effect.fnUntraced(
  function*(
    client: typeof ContainerdClient.Service,
    options: { readonly path: string; readonly containerd: string; readonly hasCri: boolean }
  ) {
    const { hasCri, path } = options
    const startTries = hasCri ? maxStartTries : 0
    const reported = yield* client.criConfig.pipe(
      Effect.retry({ schedule: Schedule.spaced("250 millis"), times: startTries }),
      Effect.map(Option.flatMap(ContainerdConfig.ofCriStatus)),
      // No CRI plugin.
      Effect.orElseSucceed(() => Option.none<Config>())
    )
    let reason = path === "" ? "--containerd-config names no file" : `${path} does not exist here`
    const file = existsSync(path)
      ? yield* ContainerdConfig.read(path).pipe(
        Effect.tapError(({ message }) => Effect.sync(() => reason = message)),
        Effect.option
      )
      : Option.none<Config>()
    return { containerd: options.containerd, path, reported, file, reason } satisfies KnownConfig
  }
)

/** What containerd runs with, as far as it is known. */
const running = ({ file, reported }: KnownConfig): Option.Option<Config> => Option.orElse(reported, () => file)

const unknown = ({ containerd, reason }: KnownConfig): string =>
  `containerd ${containerd} does not report its configuration, and ${reason}`

/** Findings that do not keep this containerd from using the mirror. */
const warnings: ReadonlySet<ConfigFindings.Finding["_tag"]> = new Set(["UpgradeWillIgnoreConfigPath"])

const pathOf = (config: Config, containerd: string) => ConfigFindings.used(config, containerd).registry.configPath

/** The file would keep containerd from the mirror, once containerd reads it. */
const atRestart = (finding: ConfigFindings.Finding, { path }: KnownConfig) =>
  warning(
    "config-path",
    `containerd reads hosts.toml files until it is restarted, but not with what ${path} says now: ${
      ConfigFindings.describe(finding)
    }`,
    "correct the file before containerd is restarted"
  )

/** Whether containerd reads hosts.toml files, and from the right directory. */
export const configPath = (known: KnownConfig, expected: string): Check => {
  const { containerd, file, path } = known
  const config = running(known)
  if (Option.isNone(config)) return skipped("config-path", `${unknown(known)}; the canary shows whether it is right`)
  const findingsOf = (config: Config) =>
    ConfigFindings.find(config, { containerd, configPath: expected }).filter(({ _tag }) => _tag !== "LayersDiscarded")
  const [found, ...more] = findingsOf(config.value)
  const [written] = Option.match(file, { onNone: () => [], onSome: findingsOf })
  if (found === undefined) {
    return written === undefined
      ? ok(
        "config-path",
        `containerd reads hosts.toml files from ${Option.getOrElse(pathOf(config.value, containerd), () => "")}`
      )
      : atRestart(written, known)
  }
  if (Option.isSome(file) && written === undefined) {
    return problem(
      "config-path",
      `${ConfigFindings.describe(found)}; ${path} is right, but containerd runs with what it read at its start`,
      "restart containerd"
    )
  }
  // The file may say more than containerd's report, such as that the setting is under another key.
  const told = found._tag === "ConfigPathUnset" && written !== undefined ? written : found
  const verdict = [found, ...more].every(({ _tag }) => warnings.has(_tag)) ? warning : problem
  const where = path === "" ? "containerd's configuration file" : path
  return verdict("config-path", ConfigFindings.describe(told), `edit ${where}, and restart containerd`)
}

/** The check, after a pull that reached the mirror: the file is not what containerd runs with. */
export const refuted = (check: Check): Check =>
  check.verdict === "problem"
    ? {
      ...check,
      verdict: "warning",
      found:
        `containerd's pull reached the mirror, but the configuration that can be seen says otherwise: ${check.found}`,
      advice: "correct it before containerd is restarted; in a container, give the paths as the node has them"
    }
    : check

/** Snapshotters that fetch layers themselves, when a container reads them. */
const lazy: ReadonlySet<string> = new Set(["cvmfs-snapshotter", "nydus", "overlaybd", "soci", "stargz"])

const ctrNote = "ctr and nerdctl read hosts.toml only with --hosts-dir"

/** Whether the kubelet's pulls go another way than through hosts.toml. */
export const pullMode = (known: KnownConfig): Check => {
  const config = running(known)
  if (Option.isNone(config)) return skipped("pull-mode", `${unknown(known)}; ${ctrNote}`)
  const { localPull, new: current, old } = config.value
  const snapshotter = Option.getOrElse(Option.orElse(current.snapshotter, () => old.snapshotter), () => "")
  if (lazy.has(snapshotter)) {
    return warning(
      "pull-mode",
      `the snapshotter ${snapshotter} fetches layers itself, and not through hosts.toml`,
      `configure this mirror in the settings of ${snapshotter} too, or use an ordinary snapshotter`
    )
  }
  const way = ConfigFindings.atLeast(known.containerd, 2, 1)
    ? localPull ? "by itself (use_local_image_pull, or a setting that implies it)" : "by its transfer service"
    : "by itself"
  return ok("pull-mode", `the CRI plugin pulls ${way}, through hosts.toml; ${ctrNote}`)
}

/** Whether layers are kept for peers. `canaryKept` is whether containerd kept the canary's; undefined if there was none. */
export const layers = (known: Option.Option<KnownConfig>, canaryKept: boolean | undefined): Check => {
  if (canaryKept === true) return ok("layers", "containerd kept the canary's layer")
  const config = Option.flatMap(known, running)
  const isDiscarding = canaryKept === false ||
    Option.exists(
      Option.all([known, config]),
      ([{ containerd }, config]) => ConfigFindings.used(config, containerd).layers.discardsLayers
    )
  if (isDiscarding) {
    return problem(
      "layers",
      "containerd discards layers once they are unpacked: peers get none from this node",
      "set discard_unpacked_layers = false in containerd's configuration, name one directory only in config_path, and restart " +
        "containerd; images that it pulls from then on are kept whole"
    )
  }
  return Option.isSome(config)
    ? ok("layers", "discard_unpacked_layers is off")
    : skipped("layers", Option.match(known, { onNone: () => "containerd does not answer", onSome: unknown }))
}
