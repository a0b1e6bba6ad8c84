/** Names nodes for people: by their addresses. Ids are long, and nobody knows them by heart. */
import type { Peer } from "@spegel-ts/router/Peer"
import { Schema } from "effect"
import type { Facts } from "./Facts.ts"

/** A node, as far as this one knows it. */
export const NodeName = Schema.Struct({
  /** Empty if only its address is known. */
  id: Schema.String,
  /** Empty if only its id is known. */
  address: Schema.String,
  zone: Schema.optionalKey(Schema.String)
})
export type NodeName = typeof NodeName.Type

export const nameOf = ({ addresses, id, zone }: Peer): NodeName => ({
  id,
  address: addresses[0] ?? "",
  ...(zone === undefined ? {} : { zone })
})

/** Finds the names of nodes. */
export interface NodeNames {
  readonly byId: (id: string) => NodeName
  readonly byAddress: (address: string) => NodeName
}

export const of = ({ peers, self }: Pick<Facts, "peers" | "self">): NodeNames => {
  const known = [self, ...peers]
  const byId = new Map(known.map((peer) => [peer.id, nameOf(peer)]))
  return {
    byId: (id) => byId.get(id) ?? { id, address: "" },
    byAddress: (address) => {
      const peer = known.find(({ addresses }) => addresses.includes(address))
      return peer === undefined ? { id: "", address } : { ...nameOf(peer), address }
    }
  }
}
