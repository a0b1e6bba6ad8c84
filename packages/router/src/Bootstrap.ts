/**
 * The sources of a router's first peers. They name multiaddrs, with or without a `/p2p/` id. The router dials some of them,
 * skips its own, and asks again when it has lost all peers.
 *
 * To add a kind of source, write a function that returns a `Source`.
 */
import { multiaddr } from "@multiformats/multiaddr"
import type { LeaderElection } from "@spegel-ts/leader-election/LeaderElection"
import { Context, Data, type Duration, Effect, Layer, Option, Result, Schedule, Schema, Stream } from "effect"
import * as HttpClient from "effect/http/HttpClient"
import type { HttpClientError } from "effect/http/HttpClientError"
import type { HttpClientResponse } from "effect/http/HttpClientResponse"
import { lookup } from "node:dns/promises"
import * as PeerAddress from "./PeerAddress.ts"

/**
 * A source could not be asked. `source` names it, `hint` says what to check, and `found` is what other sources named. The
 * router logs it, uses `found`, and asks again.
 */
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

/** A static peer is neither a TCP multiaddr nor `IP:port`. */
export class InvalidBootstrapPeer extends Data.TaggedError("InvalidBootstrapPeer")<{ readonly peer: string }> {
  override get message() {
    return `${
      JSON.stringify(this.peer)
    } is not a bootstrap peer: expected /ip4/10.0.0.7/tcp/5001, with or without /p2p/<id>, or 10.0.0.7:5001`
  }
}

/** The source, or the sources, of a router's first peers. */
export class Bootstrap extends Context.Service<Bootstrap, {
  /** Multiaddrs such as `/ip4/10.0.0.7/tcp/5001/p2p/12D3Koo...`. They may be none, and may include this node's own. */
  readonly addresses: Effect.Effect<ReadonlyArray<string>, BootstrapUnavailable>
  /** Emits when the addresses have changed, so that the router asks for them before it is time. */
  readonly changes: Stream.Stream<void>
}>()("@spegel-ts/router/Bootstrap") {}

/** A source of addresses. */
export type Source = typeof Bootstrap.Service

/** The service from one source; see `merge` for several. */
export const layer = (source: Source): Layer.Layer<Bootstrap> => Layer.succeed(Bootstrap, source)

const withoutChanges = (addresses: Source["addresses"]): Source => ({ addresses, changes: Stream.never })

/** Parses a static peer: a TCP multiaddr, or an IP address and a port. Returns it as a multiaddr. */
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

/** A fixed list of peers, each as `parsePeer` takes it. */
export const fromStatic = (peers: ReadonlyArray<string>): Result.Result<Source, InvalidBootstrapPeer> =>
  Result.map(Result.all(peers.map(parsePeer)), (addresses) => withoutChanges(Effect.succeed(addresses)))

/** All addresses (A and AAAA) of a DNS name, such as a headless service's, with one TCP port. */
export const fromDns = (options: { readonly name: string; readonly port: number }): Source =>
  withoutChanges(
    Effect.tryPromise({
      try: () => lookup(options.name, { all: true }),
      catch: (cause) =>
        new BootstrapUnavailable({
          source: `dns ${options.name}`,
          hint: "the name does not resolve; check the name, and that the service has endpoints",
          cause
        })
    }).pipe(
      Effect.map((found) => found.map(({ address }) => PeerAddress.ofSocket(address, options.port).toString()))
    )
  )

/** A node as Go's `peer.AddrInfo` is encoded; an empty list of addresses is `null`. */
const AddrInfo = Schema.Struct({
  ID: Schema.optionalKey(Schema.String),
  Addrs: Schema.NullOr(Schema.Array(Schema.String))
})
const decodeDocument = Schema.decodeEffect(Schema.fromJsonString(Schema.Union([Schema.Array(AddrInfo), AddrInfo])))

const maxDocumentAddresses = 10_000
/** Enough for some thousands of nodes, each with its id and a few addresses. */
const maxDocumentBytes = 1024 * 1024

/**
 * The nodes listed at a URL as `[{"ID":"12D3Koo...","Addrs":["/ip4/10.0.0.7/tcp/5001"]}]`, or one such object; the id may be
 * empty. This is the format of Go Spegel's HTTP bootstrap. The answer is untrusted: its status has to be 200, and its size
 * is limited to 1 MiB. `client` decides about TLS. Default `timeout`: 3 seconds for the complete answer.
 */
export const fromHttp = (options: {
  readonly url: URL
  readonly client: HttpClient.HttpClient
  readonly timeout?: Duration.Input
}): Source => {
  const { client, timeout = "3 seconds", url } = options
  const source = `http ${url.origin}${url.pathname}`
  const unavailable = (hint: string, cause?: unknown) => new BootstrapUnavailable({ source, hint, cause })
  return withoutChanges(
    HttpClient.withScope(client).get(url, { headers: { accept: "application/json" } }).pipe(
      Effect.filterOrFail(
        ({ status }) => status === 200,
        ({ status }) => unavailable(`the answer has status ${status}; check the URL, its path is often /id`)
      ),
      Effect.flatMap(bytesOf),
      Effect.filterOrFail(
        (body) => body.length <= maxDocumentBytes,
        () => unavailable(`the answer is larger than ${maxDocumentBytes} bytes; check that the URL is a list of peers`)
      ),
      Effect.catchTag(
        "HttpClientError",
        (error) =>
          Effect.fail(
            unavailable(`cannot be reached: ${reasonOf(error)}; check the URL, and that a node listens there`)
          )
      ),
      // Aborts the request when the answer was read, or is not wanted.
      Effect.scoped,
      // A span for each question would be a trace of its own.
      Effect.provideService(HttpClient.TracerDisabledWhen, () => true),
      Effect.timeoutOrElse({
        duration: timeout,
        orElse: () =>
          Effect.fail(unavailable("no complete answer in time; check the URL, and that the node there is alive"))
      }),
      Effect.flatMap((body) =>
        Effect.mapError(
          decodeDocument(body.toString()),
          (cause) =>
            unavailable(
              `the answer is not a list of peers; expected [{"ID":"12D3Koo...","Addrs":["/ip4/10.0.0.7/tcp/5001"]}]`,
              cause
            )
        )
      ),
      Effect.flatMap((document) => {
        const { listed, usable } = addressesIn(document)
        return listed > 0 && usable.length === 0
          ? Effect.fail(unavailable("none of its addresses is an IP with a TCP port, such as /ip4/10.0.0.7/tcp/5001"))
          : Effect.succeed(usable)
      })
    )
  )
}

/** The body, or at least one byte more than the limit. */
const bytesOf = (response: HttpClientResponse): Effect.Effect<Buffer, HttpClientError> => {
  let bytes = 0
  return response.stream.pipe(
    Stream.takeUntil((chunk) => (bytes += chunk.length) > maxDocumentBytes),
    Stream.runCollect,
    Effect.map((chunks) => Buffer.concat(chunks))
  )
}

const reasonOf = ({ message, reason }: HttpClientError): string =>
  reason.cause instanceof Error ? reason.cause.message : message

/** Addresses with a name in place of an IP, or of other transports, are skipped: the node may have better ones. */
const addressesIn = (document: Effect.Success<ReturnType<typeof decodeDocument>>) => {
  const listed = ("Addrs" in document ? [document] : document).flatMap(({ Addrs, ID = "" }) =>
    (Addrs ?? []).map((address) => ID === "" || address.includes("/p2p/") ? address : `${address}/p2p/${ID}`)
  )
  const usable = listed.slice(0, maxDocumentAddresses).flatMap((address) =>
    Result.match(parsePeer(address), { onFailure: () => [], onSuccess: (peer) => [peer] })
  )
  return { listed: listed.length, usable }
}

const electionTime = "5 seconds"

/** The holder of a lease, which names itself by its multiaddr. Anybody who may write the lease can name any address. */
export const fromLeader = (election: typeof LeaderElection.Service, options: {
  /** This node's multiaddr: it may be the leader itself. */
  readonly self: string
  readonly usable: PeerAddress.UsableOptions
}): Source => {
  const unavailable = (hint: string, cause?: unknown) => new BootstrapUnavailable({ source: "kubernetes", hint, cause })
  const usable = (address: string) => PeerAddress.isUsableAddress(multiaddr(address), options.usable)
  return {
    addresses: Stream.runHead(Stream.filter(election.leader, Option.isSome)).pipe(
      Effect.mapError((error) => unavailable(error.message, error)),
      // A new cluster has no leader for a moment. A node must not take itself for the only one because of that.
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
          }, which is not an address of a peer; does another program use the lease, or is the address outside of the ` +
            "peers' CIDRs?"
        ))
      })
    ),
    // An election that cannot be read yet is asked again. It answers from memory: the API server is not asked.
    changes: election.leader.pipe(
      Stream.retry(Schedule.spaced("1 second")),
      Stream.filter((leader) => Option.isSome(leader) && leader.value !== options.self),
      Stream.map(() => undefined),
      Stream.orDie
    )
  }
}

/** All sources together. If one cannot be asked, the whole fails: what the others named is in `found`. */
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
