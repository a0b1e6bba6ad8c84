/** The named images that this node holds. */
import type { ImagesView } from "../views/Images.ts"
import { type Html, html } from "./Html.ts"
import * as Parts from "./Parts.ts"

const maxShown = 200

export const render = ({ images, isUnknown }: ImagesView): Html => {
  if (isUnknown) return Parts.nothing("The store does not answer.")
  if (images.length === 0) return Parts.nothing("This node holds no named images.")
  return html`${
    Parts.table("Images held", [
      { name: "Image and tag", of: ({ name }) => html`<a href="?${lookup(name)}#lookup">${name}</a>` },
      { name: "Digest", of: ({ digest }) => Parts.content(digest) }
    ], images.slice(0, maxShown))
  }${Parts.more(maxShown, images.length, "/debug/images.json")}`
}

const lookup = (image: string): string => String(new URLSearchParams({ image }))
