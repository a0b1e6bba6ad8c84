/**
 * Where a router finds its first peers. Sources give multiaddrs, with or without a `/p2p/` id; the router dials them,
 * skips itself, and asks again when it has lost everybody.
 */
import { multiaddr } from "@multiformats/multiaddr"
import { Context, Data, type Duration, Effect, Layer, Option, Random, Result, Schema } from "effect"
import { lookup } from "node:dns/promises"
import * as PeerAddress from "./PeerAddress.ts"

/** A source could not be asked; `source` names it, `hint` says what to check. */
export class BootstrapUnavailable extends Data.TaggedError("BootstrapUnavailable")<{
  readonly source: string
  readonly hint: string
  readonly cause?: unknown
}> {
  override get message() {
    return `bootstrap ${this.source}: ${this.hint}`
  }
}

/** A static peer that is neither a multiaddr nor `IP:port`. */
export class InvalidBootstrapPeer extends Data.TaggedError("InvalidBootstrapPeer")<{ readonly peer: string }> {
  override get message() {
    return `${
      JSON.stringify(this.peer)
    } is no bootstrap peer: expected /ip4/10.0.0.7/tcp/5001, with or without /p2p/<id>, or 10.0.0.7:5001`
  }
}

export class Bootstrap extends Context.Service<Bootstrap, {
  /** Multiaddrs such as `/ip4/10.0.0.7/tcp/5001/p2p/12D3Koo...`; may be empty, may contain this node's own. */
  readonly addresses: Effect.Effect<ReadonlyArray<string>, BootstrapUnavailable>
}>()("@spegel-ts/router/Bootstrap") {}

type Source = typeof Bootstrap.Service

/** Addresses of one source that a round dials; more would let each new node of a large cluster dial it whole. */
const roundSize = 16

/** A source that gives a few of its addresses at a time, in random order, each as often as the others. */
const inTurn = (source: Source): Source => {
  let given = new Map<string, number>()
  let round = 0
  return {
    addresses: source.addresses.pipe(
      Effect.flatMap((found) => Random.shuffle(new Set(found))),
      Effect.map((shuffled) => {
        round++
        const taken = shuffled.toSorted((a, b) => (given.get(a) ?? 0) - (given.get(b) ?? 0)).slice(0, roundSize)
        // Only what is still there is remembered, so that it does not grow as addresses come and go.
        given = new Map(shuffled.map((address) => [address, given.get(address) ?? 0]))
        for (const address of taken) given.set(address, round)
        return taken
      })
    )
  }
}

/** Reads a static peer: a TCP multiaddr, or an IP address and a port. */
export const parsePeer = (peer: string): Result.Result<string, InvalidBootstrapPeer> => {
  const invalid = Result.fail(new InvalidBootstrapPeer({ peer }))
  const socket = /^(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)):([0-9]{1,5})$/.exec(peer)
  try {
    const address = socket === null
      ? multiaddr(peer)
      : PeerAddress.ofSocket(socket[1] ?? socket[2] ?? "", Number(socket[3]))
    return Option.isSome(PeerAddress.ipOf(address)) ? Result.succeed(address.toString()) : invalid
  } catch {
    return invalid
  }
}

/** Peers that are written down. */
export const fromStatic = (peers: ReadonlyArray<string>): Result.Result<Source, InvalidBootstrapPeer> =>
  Result.map(Result.all(peers.map(parsePeer)), (addresses) => inTurn({ addresses: Effect.succeed(addresses) }))

/** All addresses (A and AAAA) of a name, such as a headless service's, on one port. */
export const fromDns = (options: { readonly name: string; readonly port: number }): Source =>
  inTurn({
    addresses: Effect.tryPromise({
      try: () => lookup(options.name, { all: true }),
      catch: (cause) =>
        new BootstrapUnavailable({
          source: `dns ${options.name}`,
          hint: "the name does not resolve; check --dns-bootstrap-domain and that the service has endpoints",
          cause
        })
    }).pipe(
      Effect.map((found) => found.map(({ address }) => PeerAddress.ofSocket(address, options.port).toString()))
    )
  })

/** One node as Go's `peer.AddrInfo` is written: no addresses are `null`. */
const AddrInfo = Schema.Struct({
  ID: Schema.optionalKey(Schema.String),
  Addrs: Schema.NullOr(Schema.Array(Schema.String))
})
const decodeDocument = Schema.decodeEffect(Schema.fromJsonString(Schema.Union([Schema.Array(AddrInfo), AddrInfo])))

const maxDocumentBytes = 64 * 1024
const maxDocumentAddresses = 64

const download = async (
  url: URL,
  options: { readonly signal: AbortSignal; readonly fail: (hint: string) => BootstrapUnavailable }
): Promise<string> => {
  const response = await fetch(url, { signal: options.signal, headers: { accept: "application/json" } })
  if (!response.ok) {
    await response.body?.cancel()
    throw options.fail(`the answer is status ${response.status}; check --http-bootstrap-peer, its path is often /id`)
  }
  const chunks: Array<Uint8Array> = []
  let bytes = 0
  for await (const chunk of response.body ?? []) {
    bytes += chunk.length
    if (bytes > maxDocumentBytes) {
      throw options.fail(
        `the answer is larger than ${maxDocumentBytes} bytes; check that --http-bootstrap-peer is a list of peers`
      )
    }
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString()
}

/** What a URL lists as `[{"ID":"12D3Koo...","Addrs":["/ip4/10.0.0.7/tcp/5001"]}]`, or one such object; the id may be empty. */
export const fromHttp = (options: { readonly url: URL; readonly timeout?: Duration.Input }): Source => {
  const { timeout = "3 seconds", url } = options
  const source = `http ${url.origin}${url.pathname}`
  const fail = (hint: string, cause?: unknown) => new BootstrapUnavailable({ source, hint, cause })
  return inTurn({
    addresses: Effect.tryPromise({
      try: (signal) => download(url, { signal, fail }),
      catch: (cause) =>
        cause instanceof BootstrapUnavailable ? cause : fail(
          "cannot be reached; check --http-bootstrap-peer and that a node listens there (--http-bootstrap-addr)",
          cause
        )
    }).pipe(
      Effect.timeoutOrElse({
        duration: timeout,
        orElse: () =>
          Effect.fail(fail("no complete answer in time; check --http-bootstrap-peer and that the node there is alive"))
      }),
      Effect.flatMap((text) =>
        Effect.mapError(
          decodeDocument(text),
          (cause) =>
            fail(
              `the answer is no list of peers; expected [{"ID":"12D3Koo...","Addrs":["/ip4/10.0.0.7/tcp/5001"]}]`,
              cause
            )
        )
      ),
      Effect.flatMap((document) => {
        const listed = ("Addrs" in document ? [document] : document).flatMap(({ Addrs, ID = "" }) =>
          (Addrs ?? []).map((address) => ID === "" || address.includes("/p2p/") ? address : `${address}/p2p/${ID}`)
        )
        // Addresses by name or of other transports are not for us; the node may have better ones beside them.
        const usable = listed.slice(0, maxDocumentAddresses).flatMap((address) =>
          Result.match(parsePeer(address), { onFailure: () => [], onSuccess: (peer) => [peer] })
        )
        return listed.length > 0 && usable.length === 0
          ? Effect.fail(fail("none of its addresses is an IP with a TCP port, such as /ip4/10.0.0.7/tcp/5001"))
          : Effect.succeed(usable)
      })
    )
  })
}

/** All sources together. One that cannot be asked is passed over, unless none can. */
export const merge = (sources: ReadonlyArray<Source>): Source => ({
  addresses: Effect.gen(function*() {
    const results = yield* Effect.forEach(sources, (source) => Effect.result(source.addresses), {
      concurrency: "unbounded"
    })
    const found = results.flatMap((result) => Result.isSuccess(result) ? result.success : [])
    const failure = results.find(Result.isFailure)
    if (failure !== undefined && found.length === 0) return yield* failure.failure
    return [...new Set(found)]
  })
})

export const layer = (source: Source): Layer.Layer<Bootstrap> => Layer.succeed(Bootstrap, source)
