/** How a body ends that is not sent to its end. */
import { Data } from "effect"

/** The body could not be sent to its end; the connection is closed, so that the client sees it. */
export class BodyInterrupted extends Data.TaggedError("BodyInterrupted")<{ readonly reason: string }> {
  override get message() {
    return this.reason
  }
}

export const clientGone = "the client closed the connection before the body was complete"
