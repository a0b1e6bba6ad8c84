/** The messages between the event loop and the mover's thread. */

/** A body to move. Both descriptors are the mover's own: it closes them. */
export interface Job {
  readonly id: number
  readonly kind: "file" | "growing file" | "relay"
  readonly from: number
  readonly to: number
  /** The offset of the first byte in a file. */
  readonly offset: number
  readonly length: number
  /** The memory of the body's `Progress`. */
  readonly progress: SharedArrayBuffer
}

export type Command =
  | { readonly _tag: "Move"; readonly job: Job }
  | { readonly _tag: "Abort"; readonly id: number }
  | { readonly _tag: "Close" }

/** How a job ended. */
export type Ending =
  | { readonly _tag: "Complete"; readonly source: "quiet" | "closed" | "sent more" }
  | { readonly _tag: "ClientGone" }
  | { readonly _tag: "SourceEnded"; readonly reason: string }
  | { readonly _tag: "Aborted" }
  /** Nothing was moved: there was no pipe, or the kernel cannot do it with these descriptors. */
  | { readonly _tag: "Refused" }
  | { readonly _tag: "Failed"; readonly reason: string }

export type Report =
  | { readonly _tag: "Started" }
  | { readonly _tag: "Ended"; readonly id: number; readonly ending: Ending; readonly idlePipes: number }

export interface ThreadData {
  /** An eventfd that is signalled after each command. */
  readonly wake: number
}
