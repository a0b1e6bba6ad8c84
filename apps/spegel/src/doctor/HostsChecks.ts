/** Checks the hosts.toml that applies to each mirrored registry: does containerd ask a mirror by it, and with this node's token? */
import * as ClientToken from "@spegel-ts/cluster-key/ClientToken"
import type { KeyRing } from "@spegel-ts/cluster-key/KeyRing"
import * as AppliedHosts from "@spegel-ts/containerd/AppliedHosts"
import { Effect, Option } from "effect"
import { type Check, ok, problem, skipped, warning } from "./Check.ts"
import type { Answerer } from "./MirrorProbe.ts"
import * as MirrorProbe from "./MirrorProbe.ts"

export interface HostsOptions {
  readonly configPath: string
  /** containerd's version. */
  readonly containerd: string
  /** The cluster's keys, by which containerd's token is made; none where nobody proves anything. */
  readonly keys: Option.Option<KeyRing>
  /** The name in this node's token. */
  readonly nodeName: string
  /** The address of this mirror, for advice. */
  readonly registryAddr: string
}

/** A host of the file, and what answers there. */
interface Probed {
  readonly host: AppliedHosts.AskedHost
  readonly answerer: Answerer
}

/** At most this many hosts of a file are asked. */
const maxHosts = 8
const configure = "run spegel configuration on this node, with the same --containerd-registry-config-path"

const urlOf = (url: string) => url.startsWith("http") ? url : `https://${url}`

const noMirror = (path: string, probed: ReadonlyArray<Probed>, registryAddr: string): Check => {
  const silent = probed.flatMap(({ answerer, host }) =>
    answerer._tag === "Nobody" ? [`${host.url} (${answerer.reason})`] : []
  )
  const others = probed.flatMap(({ answerer, host }) =>
    answerer._tag === "Other" ? [`${host.url} is ${answerer.description}`] : []
  )
  const found = probed.length === 0
    ? `${path} names no host before the registry itself`
    : [...silent.length > 0 ? [`nothing answers at ${silent.join(", ")}`] : [], ...others].join("; ")
  return problem(
    "hosts-toml",
    probed.length === 0 ? found : `${path} names no mirror that answers: ${found}`,
    `${configure} and --mirror-targets with an address at which this mirror can be reached from the node (it listens on ${registryAddr})`
  )
}

/** What is wrong with the token that containerd sends to a mirror; undefined if nothing. */
const tokenFault = (
  { authorization }: AppliedHosts.AskedHost,
  { keys, nodeName }: HostsOptions
): string | undefined => {
  if (Option.isNone(keys)) return undefined
  const token = /^bearer +(\S+)$/i.exec(Option.getOrElse(authorization, () => ""))?.[1]
  if (token === undefined) return "has no token of the cluster key"
  const proved = ClientToken.verify(keys.value, token)
  if (proved === undefined) return "has a token of another cluster key"
  return proved.node === nodeName
    ? undefined
    : `has the token of the node ${proved.node}, but the mirror's is ${nodeName}`
}

const judge = (
  { doubts, path }: { readonly path: string; readonly doubts: ReadonlyArray<string> },
  probed: ReadonlyArray<Probed>,
  options: HostsOptions
): Check => {
  const mirror = probed.find(({ answerer }) => answerer._tag === "Mirror")
  if (mirror === undefined) return noMirror(path, probed, options.registryAddr)
  const { capabilities, url } = mirror.host
  if (capabilities.length > 0 && !capabilities.includes("pull")) {
    return problem("hosts-toml", `${path}: the mirror ${url} lacks the capability pull`, configure)
  }
  const fault = tokenFault(mirror.host, options)
  if (fault !== undefined) {
    return problem(
      "hosts-toml",
      `${path} ${fault}`,
      `${configure}, --cluster-key-file and --node-name as the mirror has them`
    )
  }
  const [first] = probed
  if (first !== undefined && first !== mirror) {
    const reason = first.answerer._tag === "Nobody" ? ` (${first.answerer.reason})` : ""
    return warning(
      "hosts-toml",
      `${path}: containerd asks ${first.host.url}${reason} before the mirror ${url}`,
      configure
    )
  }
  if (doubts.length > 0) {
    return warning(
      "hosts-toml",
      `${path}: other versions of containerd read it differently: ${doubts.join("; ")}`,
      configure
    )
  }
  const tags = capabilities.length === 0 || probed.some(({ host }) => host.capabilities.includes("resolve"))
  return ok("hosts-toml", `containerd asks ${url} first${tags ? "" : ", and upstream alone for tags"} (${path})`)
}

/** The check, after a pull that reached the mirror: in a container other files and addresses are in sight than containerd's. */
export const refuted = (check: Check): Check =>
  check.verdict === "problem"
    ? skipped("hosts-toml", `containerd's pull reached the mirror, but this cannot be seen from here: ${check.found}`)
    : check

/** Whether containerd asks the mirror for images of one registry. */
export const check = Effect.fnUntraced(
  function*(registry: string, options: HostsOptions) {
    const { configPath } = options
    const applied = yield* AppliedHosts.find({ ...options, registry })
    switch (applied._tag) {
      case "NoConfigPath":
        return problem("hosts-toml", `${configPath} does not exist`, configure)
      case "NoDirectory":
        return problem("hosts-toml", `${configPath} has no directory for ${registry}, and no _default`, configure)
      case "NoFile":
        return problem(
          "hosts-toml",
          `${applied.directory} has no hosts.toml, and hides _default: containerd does not ask the mirror`,
          `${configure}, or remove the directory`
        )
      case "Refused":
        return problem(
          "hosts-toml",
          `containerd refuses ${applied.path}: ${applied.reasons.join("; ")}`,
          `correct the file, or ${configure}`
        )
      case "Hosts": {
        const probed = yield* Effect.forEach(
          applied.hosts.slice(0, maxHosts),
          (host) => Effect.map(MirrorProbe.ask(urlOf(host.url)), (answerer): Probed => ({ host, answerer })),
          { concurrency: maxHosts }
        )
        return judge(applied, probed, options)
      }
    }
  },
  Effect.catchTag("HostsUnreadable", (error) =>
    Effect.succeed(
      error.isForbidden
        ? skipped(
          "hosts-toml",
          `${error.path} has a token that only root may read, as it should; the canary shows whether it is right`
        )
        : problem("hosts-toml", error.message, "let containerd read the file")
    ))
)
