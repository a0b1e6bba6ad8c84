/** The bodies that this node is sending to others. */
import type { Status } from "../views/Status.ts"
import type { Upload } from "../views/Uploads.ts"
import * as Wording from "../views/Wording.ts"
import { type Html, html } from "./Html.ts"
import * as Parts from "./Parts.ts"

const maxShown = 100

export const render = (uploads: ReadonlyArray<Upload>, { lastHour }: Status): Html =>
  html`<p>In the last hour: ${Wording.count(lastHour.sentToPeers, "request")} of peers served, ${
    Wording.size(lastHour.bytesSentToPeers)
  }.</p>${
    uploads.length === 0 ? Parts.nothing("Nothing is being sent to others.") : Parts.table<Upload>("Uploads", [
      { name: "To", of: ({ to }) => Parts.node(to) },
      { name: "Image", of: ({ image }) => image },
      { name: "Content", of: ({ content }) => Parts.content(content) },
      {
        name: "Progress",
        of: ({ content, sent, size }) =>
          html`${Parts.bar(`Sent of ${Wording.short(content)}`, sent, size)} ${Wording.progress(sent, size)}`
      },
      { name: "For", of: ({ millis }) => Wording.duration(millis), isNumber: true }
    ], uploads.slice(0, maxShown))
  }`
