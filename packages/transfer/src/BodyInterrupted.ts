/** How a body ends that is not sent to its end. */
import { Data } from "effect"
import { ClientGone } from "./Body.ts"

/** The body could not be sent to its end; the connection is closed, so that the client sees it. */
export class BodyInterrupted extends Data.TaggedError("BodyInterrupted")<{ readonly reason: string }> {
  override get message() {
    return this.reason
  }
}

/** By which a trace tells a client that leaves from a body that breaks off. */
export const clientGone: string = new ClientGone().message
