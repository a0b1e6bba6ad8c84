/** Where a node finds its first peers. */
import * as Bootstrap from "@spegel-ts/router/Bootstrap"
import { Option, Result } from "effect"
import { ListenAddress } from "../cli/ListenAddress.ts"
import { many, one, type Values } from "../cli/Setting.ts"
import { optional, textSchema, wordSchema } from "../cli/TextSchema.ts"
import { kubeconfigPath, objectName, optionalPath } from "./SharedSettings.ts"

const kinds = ["dns", "http", "kubernetes", "static"] as const

/** A source of first peers. */
export type BootstrapKind = typeof kinds[number]

const bootstrapPeer = textSchema<string>({
  expected: "a peer such as /ip4/10.0.0.7/tcp/5001 or 10.0.0.7:5001",
  parse: (text) => Result.getSuccess(Bootstrap.parsePeer(text)),
  print: (peer) => peer
})

const bootstrapUrl = {
  schema: optional(textSchema<URL>({
    expected: "a URL without user or password, such as http://10.0.0.7:5002/id",
    parse: (text) =>
      Option.filter(
        Option.fromNullOr(URL.parse(text)),
        ({ password, protocol, username }) => /^https?:$/.test(protocol) && username === "" && password === ""
      ),
    print: ({ href }) => href
  })),
  fallback: "",
  metavar: "URL"
}

/** Labels separated by dots. With optional dots, the expression would backtrack exponentially on a long name. */
const domainName = /^[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9])?)*\.?$/

const domain = textSchema<string>({
  expected: "a domain name such as spegel-bootstrap.spegel.svc.cluster.local.",
  parse: (text) => text.length <= 254 && domainName.test(text) ? Option.some(text) : Option.none(),
  print: (name) => name
})

export const bootstrapSettings = {
  bootstrapKind: many({
    description: "Where the first peers come from: dns, http, kubernetes or static",
    schema: wordSchema("a bootstrap kind: dns, http, kubernetes or static", kinds),
    metavar: "KIND"
  }),
  dnsBootstrapDomain: one({
    description: "For kind dns: a name whose addresses are peers, such as that of a headless service",
    schema: optional(domain),
    fallback: "",
    metavar: "NAME"
  }),
  staticBootstrapPeers: many({
    description: "For kind static: a peer, as multiaddr or IP:PORT",
    schema: bootstrapPeer,
    metavar: "PEER"
  }),
  httpBootstrapPeer: one({
    ...bootstrapUrl,
    description: "For kind http: a URL that lists peers, such as http://10.0.0.7:5002/id of a node"
  }),
  httpBootstrapUrl: one({
    ...bootstrapUrl,
    description: "Another name for --http-bootstrap-peer, used by later versions of Go Spegel"
  }),
  httpBootstrapAddr: one({
    description: "For kind http: where to serve this node's address to other nodes, at /id",
    schema: ListenAddress,
    fallback: ":5002",
    metavar: "[IP]:PORT"
  }),
  httpBootstrapCertDir: one({
    ...optionalPath,
    description:
      "For kind http: a directory of ca.crt, tls.crt and tls.key, each optional, in place of the three flags for files",
    metavar: "DIR"
  }),
  httpBootstrapCaFile: one({
    ...optionalPath,
    description:
      "For kind http: the authorities (PEM) for the certificates of --http-bootstrap-peer and of clients of --http-bootstrap-addr"
  }),
  httpBootstrapCertFile: one({
    ...optionalPath,
    description: "For kind http: this node's certificate (PEM), as client and as server"
  }),
  httpBootstrapKeyFile: one({
    ...optionalPath,
    description: "For kind http: the key (PEM) of that certificate"
  }),
  leaderElectionNamespace: one({
    description: "For kind kubernetes: the namespace of the lease",
    schema: objectName,
    fallback: "spegel",
    metavar: "NAME"
  }),
  leaderElectionName: one({
    description: "For kind kubernetes: the name of the lease",
    schema: objectName,
    fallback: "spegel-leader-election",
    metavar: "NAME"
  }),
  kubeconfigPath
}

export type BootstrapSettings = Values<typeof bootstrapSettings>
