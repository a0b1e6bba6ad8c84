/** The failure of a body that is not sent to its end. */
import { Data } from "effect"
import { ClientGone } from "./Body.ts"

/** The body could not be sent to its end. The caller closes the connection, and so the client sees it. */
export class BodyInterrupted extends Data.TaggedError("BodyInterrupted")<{ readonly reason: string }> {
  override get message() {
    return this.reason
  }
}

/** The reason if the client left: a trace does not show that as an error. */
export const clientGone: string = new ClientGone().message
