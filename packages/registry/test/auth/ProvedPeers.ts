/** Peers that have the cluster key, and some that are only said to have it. */
import type { KeyRing } from "@spegel-ts/cluster-key/KeyRing"
import * as Digest from "@spegel-ts/oci/Digest"
import * as MediaType from "@spegel-ts/oci/MediaType"
import * as Reference from "@spegel-ts/oci/Reference"
import * as AnswerProof from "@spegel-ts/registry/internal/auth/AnswerProof"
import * as RequestProof from "@spegel-ts/registry/internal/auth/RequestProof"
import * as Outcome from "@spegel-ts/registry/Outcome"
import * as ContentKey from "@spegel-ts/router/ContentKey"
import type { MemoryNetwork } from "@spegel-ts/router/Router"
import { Duration, Effect, Result } from "effect"
import { ns, response, startFalsePeer } from "../mirror/FalsePeer.ts"
import { recordedOf } from "../Recorded.ts"
import { startNode } from "../TestNode.ts"
import { auth, ring } from "./Keys.ts"

export const small = Buffer.from("a small layer ".repeat(100))
export const smallDigest = Digest.ofBytes(small)
/** Larger than what is verified before it is answered. */
export const large = Buffer.from(Uint32Array.from({ length: 1_600_000 }, (_, index) => index).buffer)
export const largeDigest = Digest.ofBytes(large)
export const manifest = Buffer.from(
  JSON.stringify({ schemaVersion: 2, mediaType: MediaType.imageIndex, manifests: [] })
)
export const manifestDigest = Digest.ofBytes(manifest)
export const reference = Result.getOrThrow(Reference.parse(`${ns}/team/app:v1`))
export const tag = Reference.name(reference)

type NodeOptions = Parameters<typeof startNode>[2]

export const blobUrl = (url: string, digest: string) => `${url}/v2/team/app/blobs/${digest}?ns=${ns}`
export const tagUrl = (url: string) => `${url}/v2/team/app/manifests/v1?ns=${ns}`

/** A node that holds everything and has advertised it. */
export const startHolder = Effect.fnUntraced(
  function*(network: MemoryNetwork, address: string, options: NodeOptions = {}) {
    const node = yield* startNode(network, address, { auth: auth("require"), proved: true, ...options })
    yield* Effect.forEach([small, large, manifest], node.content.put)
    yield* node.content.tag(reference, manifestDigest)
    yield* node.router.advertise([smallDigest, largeDigest, manifestDigest, tag].map(ContentKey.make))
    return node
  }
)

/** A node whose clients prove nothing, and whose peers have to if they are said to have proved the key. */
export const startAsker = (network: MemoryNetwork, address: string, options: NodeOptions = {}) =>
  startNode(network, address, { auth: auth("prefer"), hedgeDelay: Duration.seconds(30), ...options })

/** The proof in a request; undefined if it has none. */
export const proofOf = (request: string) => {
  const header = /^x-spegel-auth: (.+)\r$/im.exec(request)?.[1]
  return header === undefined ? undefined : RequestProof.parse(header)
}

/** The answer of somebody who has the key, before it is tampered with. */
export const signedAnswer = (
  request: string,
  status: number,
  body: Buffer | string,
  fields: Readonly<Record<string, string>> = {},
  options: { readonly keys?: KeyRing; readonly nonce?: string } = {}
) => {
  const { keys = ring, nonce = proofOf(request)?.nonce ?? "" } = options
  const proof = { key: keys.current("registry"), nonce }
  const headers = AnswerProof.sign(proof, status, { "content-length": String(body.length), ...fields })
  const lines = Object.entries(headers).filter(([name]) => name !== "content-length").map(([name, value]) =>
    `${name}: ${String(value)}`
  )
  return response(status, body, ...lines)
}

export const blobFields = { "content-type": MediaType.octetStream, "docker-content-digest": smallDigest }

/** A false peer that is said to have proved the key. */
export const startProvedFalsePeer = (
  network: MemoryNetwork,
  address: string,
  behave: (request: string) => Buffer,
  ...names: ReadonlyArray<string>
) =>
  Effect.map(startFalsePeer(network, address, (socket, request) => socket.write(behave(request)), ...names), (peer) => {
    const member = network.members.get(peer.id)
    if (member !== undefined) network.members.set(peer.id, { ...member, proved: true })
    return peer
  })

/** Why the only peer did not serve. */
export const failureAt = Effect.fnUntraced(
  function*(node: Effect.Success<ReturnType<typeof startAsker>>, content: string) {
    const { attempts, status } = yield* recordedOf(node.log, content)
    return [status, ...attempts.map(({ outcome }) => Outcome.print(outcome))].join("; ")
  }
)
