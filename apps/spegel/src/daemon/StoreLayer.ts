/** The store that holds this node's content, as the settings name it. */
import { ContainerdClient } from "@spegel-ts/containerd/ContainerdClient"
import * as ContainerdStore from "@spegel-ts/containerd/ContainerdStore"
import * as OciLayout from "@spegel-ts/content/OciLayout"
import * as OciLayoutWriter from "@spegel-ts/content/OciLayoutWriter"
import { Effect, Layer } from "effect"
import { flagName } from "../cli/Setting.ts"

/** Where this node's content is. */
export type StoreSettings = ContainerdSettings | {
  readonly _tag: "OciLayout"
  readonly root: string
  /** Whether to make the directory if it is missing; else that is an error. */
  readonly create: boolean
}

/** A containerd: its socket, the namespace of its images, and the directory of their blobs. */
export interface ContainerdSettings {
  readonly _tag: "Containerd"
  readonly socket: string
  readonly namespace: string
  readonly contentPath: string
}

const containerdStore = ({ contentPath, namespace, socket }: ContainerdSettings) =>
  ContainerdStore.layer({ contentPath, contentPathSetting: `--${flagName("containerdContentPath")}` }).pipe(
    Layer.provide(ContainerdClient.layer({ socket, socketSetting: `--${flagName("containerdSock")}`, namespace }))
  )

/** The store as a layer. Fails if containerd or the layout cannot be used. */
export const layer = (store: StoreSettings) => {
  if (store._tag === "Containerd") return containerdStore(store)
  return store.create
    ? Layer.unwrap(Effect.as(OciLayoutWriter.make({ root: store.root }), OciLayout.layer({ root: store.root })))
    : OciLayout.layer({ root: store.root })
}
