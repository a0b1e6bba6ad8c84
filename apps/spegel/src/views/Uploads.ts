/** The bodies that this node is sending to others. */
import { Schema } from "effect"
import type { Facts } from "./Facts.ts"
import * as NodeNames from "./NodeNames.ts"

export const Upload = Schema.Struct({
  to: NodeNames.NodeName,
  image: Schema.String,
  content: Schema.String,
  /** In bytes; null before the answer has begun. */
  size: Schema.NullOr(Schema.Finite),
  sent: Schema.Finite,
  millis: Schema.Finite
})
export type Upload = typeof Upload.Type
export const Uploads = Schema.Array(Upload)

export const of = (facts: Facts): ReadonlyArray<Upload> => {
  const names = NodeNames.of(facts)
  return facts.activity.requests
    .filter(({ method, own }) => !own && method === "GET")
    .map(({ asker, client, content, image, millis, sent, size }) => ({
      to: asker === undefined ? names.byAddress(client) : names.byId(asker),
      image,
      content,
      size: size ?? null,
      sent,
      millis
    }))
}
