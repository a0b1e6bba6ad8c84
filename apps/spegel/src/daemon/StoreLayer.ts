/** The store that holds this node's content, as the settings name it. */
import * as OciLayout from "@spegel-ts/content/OciLayout"
import * as OciLayoutWriter from "@spegel-ts/content/OciLayoutWriter"
import { Effect, Layer } from "effect"

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

/** Loads its modules only when there is a containerd: gRPC takes memory. */
const containerdStore = Effect.fnUntraced(function*({ contentPath, namespace, socket }: ContainerdSettings) {
  const { ContainerdClient } = yield* Effect.promise(() => import("@spegel-ts/containerd/ContainerdClient"))
  const ContainerdStore = yield* Effect.promise(() => import("@spegel-ts/containerd/ContainerdStore"))
  return ContainerdStore.layer({ contentPath }).pipe(Layer.provide(ContainerdClient.layer({ socket, namespace })))
})

/** The store as a layer. Fails if containerd or the layout cannot be used. */
export const layer = (store: StoreSettings) => {
  if (store._tag === "Containerd") return Layer.unwrap(containerdStore(store))
  return store.create
    ? Layer.unwrap(Effect.as(OciLayoutWriter.make({ root: store.root }), OciLayout.layer({ root: store.root })))
    : OciLayout.layer({ root: store.root })
}
