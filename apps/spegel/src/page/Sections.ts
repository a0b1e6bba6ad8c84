/** The sections of the page that change while it is open: each is rendered whole, and sent again when its HTML changed. */
import type { Facts } from "../views/Facts.ts"
import type { ImagesView } from "../views/Images.ts"
import * as NodeNames from "../views/NodeNames.ts"
import * as Peers from "../views/Peers.ts"
import * as Pulls from "../views/Pulls.ts"
import * as Status from "../views/Status.ts"
import * as Uploads from "../views/Uploads.ts"
import type { Html } from "./Html.ts"
import * as ImagesSection from "./ImagesSection.ts"
import * as PeersSection from "./PeersSection.ts"
import * as PullsSection from "./PullsSection.ts"
import * as RequestsSection from "./RequestsSection.ts"
import * as StatusSection from "./StatusSection.ts"
import * as UploadsSection from "./UploadsSection.ts"

export interface Shown {
  readonly facts: Facts
  readonly images: ImagesView
}

export type SectionName = "status" | "pulls" | "uploads" | "requests" | "peers" | "images"

interface Section {
  /** How often it is rendered again, in seconds: slower for figures that change all the time. */
  readonly everySeconds: number
  readonly render: (shown: Shown) => Html
}

export const sections: Readonly<Record<SectionName, Section>> = {
  status: { everySeconds: 1, render: ({ facts }) => StatusSection.render(Status.of(facts)) },
  pulls: { everySeconds: 1, render: ({ facts }) => PullsSection.render(Pulls.of(facts)) },
  uploads: { everySeconds: 1, render: ({ facts }) => UploadsSection.render(Uploads.of(facts), Status.of(facts)) },
  requests: { everySeconds: 1, render: ({ facts }) => RequestsSection.render(facts.pulls, NodeNames.of(facts)) },
  peers: {
    everySeconds: 5,
    render: ({ facts }) =>
      PeersSection.render({ peers: Peers.of(facts), now: facts.now, asksForKey: facts.peerAuth !== "off" })
  },
  images: { everySeconds: 5, render: ({ images }) => ImagesSection.render(images) }
}
