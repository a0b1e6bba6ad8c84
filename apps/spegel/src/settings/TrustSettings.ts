/** Who is a peer and who may pull: the settings of the cluster key, and what follows from them. */
import * as ClientToken from "@spegel-ts/cluster-key/ClientToken"
import * as ClusterKeyFile from "@spegel-ts/cluster-key/ClusterKeyFile"
import type { PeerAuthMode } from "@spegel-ts/cluster-key/PeerAuth"
import { Effect, Option, Redacted } from "effect"
import { hostname } from "node:os"
import { one, type Values } from "../cli/Setting.ts"
import { optional, wordSchema } from "../cli/TextSchema.ts"
import { SettingsInvalid } from "./SettingsInvalid.ts"
import { clusterKeyFile } from "./SharedSettings.ts"

const modes: ReadonlyArray<PeerAuthMode> = ["require", "prefer", "off"]

export const trustSettings = {
  clusterKeyFile,
  peerAuth: one({
    description:
      "How to treat peers and clients that do not prove that they know the cluster key: require serves them nothing, prefer takes them for members of less weight, off asks nobody for a proof. Default: require with --cluster-key-file, else off",
    schema: optional(wordSchema(modes.join(", "), modes)),
    fallback: "",
    metavar: "require|prefer|off"
  })
}

/** A mode, and the key file where there has to be one. */
export type PeerAuthChoice =
  | { readonly mode: "off" }
  | { readonly mode: "require" | "prefer"; readonly path: string }

/** The mode that the settings choose. Fails where the mode needs a key file that is not named. */
export const peerAuthOf = Effect.fnUntraced(function*(
  { clusterKeyFile: file, peerAuth }: Pick<Values<typeof trustSettings>, "clusterKeyFile" | "peerAuth">
): Effect.fn.Return<PeerAuthChoice, SettingsInvalid> {
  const mode = Option.getOrElse(peerAuth, (): PeerAuthMode => Option.isSome(file) ? "require" : "off")
  if (mode === "off") return { mode }
  if (Option.isSome(file)) return { mode, path: file.value }
  return yield* new SettingsInvalid({ flag: "peer-auth", reason: `${mode} needs --cluster-key-file` })
})

/** The name by which a node's containerd is known: the host's, unless it is given one. */
export const clientNameOf = (nodeName: string): string => nodeName === "" ? hostname() : nodeName

/** The token for this node's containerd, signed by the first key of the file; none without a file. */
export const clientTokenOf = Effect.fnUntraced(function*(
  settings: { readonly clusterKeyFile: Option.Option<string>; readonly nodeName: string }
): Effect.fn.Return<Option.Option<Redacted.Redacted>, ClusterKeyFile.ClusterKeyUnreadable | SettingsInvalid> {
  if (Option.isNone(settings.clusterKeyFile)) return Option.none()
  const ring = yield* ClusterKeyFile.load(settings.clusterKeyFile.value)
  const name = clientNameOf(settings.nodeName)
  const token = ClientToken.make(ring, name)
  if (token !== undefined) return Option.some(Redacted.make(token))
  return yield* new SettingsInvalid({
    flag: "node-name",
    reason: `${JSON.stringify(name)} is not a name of a node: letters, digits, -, _ and . are`
  })
})
