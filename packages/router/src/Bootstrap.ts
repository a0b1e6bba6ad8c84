/**
 * Where a router finds its first peers. Sources give multiaddrs, with or without a `/p2p/` id; the router dials them,
 * skips itself, and asks again when it has lost everybody.
 */
import { multiaddr } from "@multiformats/multiaddr"
import { Context, Data, Effect, Layer, Option, Random, Result } from "effect"
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

/** More than any cluster needs to be found; a name may resolve to thousands. */
const maxAddresses = 64

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
  Result.map(Result.all(peers.map(parsePeer)), (addresses) => ({ addresses: Effect.succeed(addresses) }))

/**
 * All addresses (A and AAAA) of a name, such as a headless service's, on one port; in a new order each time, so that a
 * large cluster does not lean on the same few.
 */
export const fromDns = (options: { readonly name: string; readonly port: number }): Source => ({
  addresses: Effect.tryPromise({
    try: () => lookup(options.name, { all: true }),
    catch: (cause) =>
      new BootstrapUnavailable({
        source: `dns ${options.name}`,
        hint: "the name does not resolve; check --dns-bootstrap-domain and that the service has endpoints",
        cause
      })
  }).pipe(
    Effect.flatMap(Random.shuffle),
    Effect.map((found) =>
      found.slice(0, maxAddresses).map(({ address }) => PeerAddress.ofSocket(address, options.port).toString())
    )
  )
})

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
