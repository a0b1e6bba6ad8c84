/**
 * Where a router finds its first peers. Sources give multiaddrs, with or without a `/p2p/` id; the router dials some of
 * them (`Joining`), skips itself, and asks again when it has lost everybody.
 */
import { multiaddr } from "@multiformats/multiaddr"
import type { LeaderElection } from "@spegel-ts/leader-election/LeaderElection"
import { Context, Data, type Duration, Effect, Layer, Option, Result, Schedule, Schema, Stream } from "effect"
import { lookup } from "node:dns/promises"
import { download, type TlsFiles } from "./HttpDocument.ts"
import * as PeerAddress from "./PeerAddress.ts"

/** A source could not be asked; `source` names it, `hint` says what to check, `found` is what others gave. */
export class BootstrapUnavailable extends Data.TaggedError("BootstrapUnavailable")<{
  readonly source: string
  readonly hint: string
  readonly found?: ReadonlyArray<string>
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
  /** Emits when it is worth asking again before it is time. */
  readonly changes: Stream.Stream<void>
}>()("@spegel-ts/router/Bootstrap") {}

export type Source = typeof Bootstrap.Service

/** A source that is asked when it is time. */
const ofAddresses = (addresses: Source["addresses"]): Source => ({ addresses, changes: Stream.never })

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
  Result.map(Result.all(peers.map(parsePeer)), (addresses) => ofAddresses(Effect.succeed(addresses)))

/** All addresses (A and AAAA) of a name, such as a headless service's, on one port. */
export const fromDns = (options: { readonly name: string; readonly port: number }): Source =>
  ofAddresses(
    Effect.tryPromise({
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
  )

/** One node as Go's `peer.AddrInfo` is written: no addresses are `null`. */
const AddrInfo = Schema.Struct({
  ID: Schema.optionalKey(Schema.String),
  Addrs: Schema.NullOr(Schema.Array(Schema.String))
})
const decodeDocument = Schema.decodeEffect(Schema.fromJsonString(Schema.Union([Schema.Array(AddrInfo), AddrInfo])))

const maxDocumentAddresses = 10_000

/** What a URL lists as `[{"ID":"12D3Koo...","Addrs":["/ip4/10.0.0.7/tcp/5001"]}]`, or one such object; the id may be empty. */
export const fromHttp = (options: {
  readonly url: URL
  readonly tls?: TlsFiles
  readonly timeout?: Duration.Input
}): Source => {
  const { timeout = "3 seconds", url } = options
  const source = `http ${url.origin}${url.pathname}`
  const fail = (hint: string, cause?: unknown) => new BootstrapUnavailable({ source, hint, cause })
  return ofAddresses(
    download(url, options.tls ?? {}).pipe(
      Effect.mapError(({ hint }) => fail(hint)),
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
  )
}

const electionTime = "5 seconds"

/** The holder of a lease, which names itself by its multiaddr. What the lease says is as untrusted as any peer. */
export const fromLeader = (election: typeof LeaderElection.Service, options: {
  /** This node's multiaddr: the leader may be itself. */
  readonly self: string
  readonly usable: PeerAddress.UsableOptions
}): Source => {
  const unavailable = (hint: string, cause?: unknown) => new BootstrapUnavailable({ source: "kubernetes", hint, cause })
  const usable = (address: string) => PeerAddress.isUsableAddress(multiaddr(address), options.usable)
  return {
    addresses: Stream.runHead(Stream.filter(election.leader, Option.isSome)).pipe(
      Effect.mapError((error) => unavailable(error.message, error)),
      // Nobody leads a new cluster for a moment; who is alone then would be so by mistake.
      Effect.timeoutOrElse({
        duration: electionTime,
        orElse: () => Effect.fail(unavailable("nobody holds the lease yet"))
      }),
      Effect.flatMap((leader) => {
        const holder = Option.filter(Option.flatten(leader), (holder) => holder !== options.self)
        if (Option.isNone(holder)) return Effect.succeed([])
        const address = Option.filter(Result.getSuccess(parsePeer(holder.value)), usable)
        return Option.isSome(address) ? Effect.succeed([address.value]) : Effect.fail(unavailable(
          `the lease names ${
            JSON.stringify(holder.value)
          }, which is no address of a peer; does another program use it ` +
            "(--leader-election-name), or is it outside of --peer-cidrs?"
        ))
      })
    ),
    // An election that cannot be read yet is asked again; this costs the API server nothing.
    changes: election.leader.pipe(
      Stream.retry(Schedule.spaced("1 second")),
      Stream.filter((leader) => Option.isSome(leader) && leader.value !== options.self),
      Stream.map(() => undefined),
      Stream.orDie
    )
  }
}

/** All sources together. Where one cannot be asked, what the others gave is not all: it is part of the failure. */
export const merge = (sources: ReadonlyArray<Source>): Source => ({
  addresses: Effect.gen(function*() {
    const results = yield* Effect.forEach(sources, (source) => Effect.result(source.addresses), {
      concurrency: "unbounded"
    })
    const found = [...new Set(results.flatMap((result) => Result.isSuccess(result) ? result.success : []))]
    const failure = results.find(Result.isFailure)?.failure
    if (failure === undefined) return found
    const { cause, hint, source } = failure
    return yield* new BootstrapUnavailable({ source, hint, cause, found })
  }),
  changes: Stream.mergeAll(sources.map(({ changes }) => changes), { concurrency: "unbounded" })
})

export const layer = (source: Source): Layer.Layer<Bootstrap> => Layer.succeed(Bootstrap, source)
