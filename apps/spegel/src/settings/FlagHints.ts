/** Names the flags to check when a command fails in a library: libraries know settings, but no flags. */
import { flagName } from "../cli/Setting.ts"
import type { RegistrySettings } from "./RegistrySettings.ts"

/** The settings behind the errors of libraries, by the tags of the errors. */
const settingsOf: Readonly<Record<string, ReadonlyArray<keyof RegistrySettings>>> = {
  ClusterAccessInvalid: ["kubeconfigPath"],
  ClusterKeyUnreadable: ["clusterKeyFile"],
  NoUsableAddress: ["routerAddr", "peerCidrs"],
  RouterListenFailed: ["routerAddr"]
}

/** The message of an error, and the flags behind it unless the message names one itself. */
export const withFlags = ({ _tag, message }: { readonly _tag: string; readonly message: string }): string => {
  const flags = (settingsOf[_tag] ?? []).map((setting) => `--${flagName(setting)}`)
  return flags.length === 0 || message.includes("--") ? message : `${message} (check ${flags.join(" and ")})`
}
