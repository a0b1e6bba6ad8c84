/** How a node takes part in the network of routers, once it has found its first peers. */
import * as PeerAddress from "@spegel-ts/router/PeerAddress"
import { Option, Result } from "effect"
import { many, one } from "../cli/Setting.ts"
import { textSchema } from "../cli/TextSchema.ts"
import { dataDir, listenAddress, positiveDuration } from "./SharedSettings.ts"

const zone = textSchema<string>({
  expected: "a zone: up to 63 letters, digits, -, _ and .",
  parse: (text) =>
    /^(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?$/.test(text) ? Option.some(text) : Option.none(),
  print: (text) => text
})

const cidr = textSchema<string>({
  expected: "a range of addresses such as 10.0.0.0/8 or fd00::/8",
  parse: (text) => Result.isSuccess(PeerAddress.parseCidrs([text])) ? Option.some(text) : Option.none(),
  print: (text) => text
})

export const routingSettings = {
  routerAddr: one({
    ...listenAddress,
    description: "Where to exchange with peers which node holds what",
    fallback: ":5001"
  }),
  dataDir,
  zone: one({
    description:
      "Zone of this node: peers of the same zone are asked first. Default: with --node-readiness-taint the node's label topology.kubernetes.io/zone, else none",
    schema: zone,
    fallback: "",
    metavar: "NAME"
  }),
  peerCidrs: many({
    description: "Range of the peers' addresses; addresses outside all ranges are ignored",
    schema: cidr,
    metavar: "CIDR"
  }),
  recordTtl: one({
    ...positiveDuration,
    description: "How long a peer's advertisement counts unless the peer repeats it",
    fallback: "10m"
  }),
  recordRefresh: one({
    ...positiveDuration,
    description: "How often this node repeats its advertisements; must be shorter than the peers' --record-ttl",
    fallback: "9m"
  })
}
