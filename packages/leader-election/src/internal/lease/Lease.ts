/**
 * The `coordination.k8s.io/v1` Lease, as client-go's elector reads and writes it. The times in it are for people: the elector
 * never compares them with a clock.
 */
import { Effect, Option, Schema } from "effect"
import { Identity } from "../../LeaderElection.ts"

const Spec = Schema.Struct({
  holderIdentity: Schema.optionalKey(Schema.NullOr(Schema.String)),
  leaseDurationSeconds: Schema.optionalKey(Schema.NullOr(Schema.Finite)),
  leaseTransitions: Schema.optionalKey(Schema.NullOr(Schema.Finite)),
  acquireTime: Schema.optionalKey(Schema.NullOr(Schema.String))
})
const Metadata = Schema.Struct({ name: Schema.String, resourceVersion: Schema.NonEmptyString })
const Wire = Schema.Struct({ metadata: Metadata, spec: Schema.optionalKey(Schema.NullOr(Spec)) })
const decodeWire = Schema.decodeUnknownEffect(Wire)
const decodeIdentity = Schema.decodeOption(Identity)

/** An object of the API. Fields that this program does not know are kept, and written back. */
export type Json = { readonly [key: string]: unknown }

/** A Lease as it was read. */
export interface Lease {
  /** All of it. */
  readonly json: Json
  readonly name: string
  readonly resourceVersion: string
  /** None if nobody holds it. */
  readonly holder: Option.Option<Identity>
  readonly durationSeconds: Option.Option<number>
  readonly transitions: number
  readonly acquireTime: Option.Option<string>
}

/** Reads a Lease from JSON of the API. */
export const decode = (json: unknown): Effect.Effect<Lease, Schema.SchemaError> =>
  Effect.map(decodeWire(json), ({ metadata, spec }) => ({
    json: json as Json,
    ...metadata,
    holder: decodeIdentity(spec?.holderIdentity ?? ""),
    durationSeconds: Option.fromNullishOr(spec?.leaseDurationSeconds),
    transitions: spec?.leaseTransitions ?? 0,
    acquireTime: Option.fromNullishOr(spec?.acquireTime)
  }))

/** Nanoseconds since 1970 as Kubernetes' MicroTime: RFC 3339 in UTC, with six digits of a second. */
export const microTime = (unixNanos: bigint): string => {
  const micros = unixNanos / 1000n
  const iso = new Date(Number(micros / 1000n)).toISOString()
  return `${iso.slice(0, -1)}${String(micros % 1000n).padStart(3, "0")}Z`
}

/** The fields that a holder writes. */
export interface Claim {
  readonly identity: Identity
  readonly durationSeconds: number
  /** A MicroTime. */
  readonly now: string
}

/** A new Lease, held by the candidate. */
export const created = (name: string, { durationSeconds, identity, now }: Claim): Json => ({
  apiVersion: "coordination.k8s.io/v1",
  kind: "Lease",
  metadata: { name },
  spec: {
    holderIdentity: identity,
    leaseDurationSeconds: durationSeconds,
    acquireTime: now,
    renewTime: now,
    leaseTransitions: 0
  }
})

const specOf = ({ json }: Lease): Json => (json["spec"] ?? {}) as Json

/** The Lease held by the candidate: renewed if it holds it already, else taken over. */
export const held = (lease: Lease, { durationSeconds, identity, now }: Claim): Json => {
  const renewed = Option.contains(lease.holder, identity)
  return {
    ...lease.json,
    spec: {
      ...specOf(lease),
      holderIdentity: identity,
      leaseDurationSeconds: durationSeconds,
      acquireTime: renewed ? Option.getOrElse(lease.acquireTime, () => now) : now,
      renewTime: now,
      leaseTransitions: renewed ? lease.transitions : lease.transitions + 1
    }
  }
}

/** The Lease given back by its holder, and free at once. */
export const released = (lease: Lease, now: string): Json => ({
  ...lease.json,
  spec: {
    ...specOf(lease),
    holderIdentity: "",
    leaseDurationSeconds: 1,
    acquireTime: now,
    renewTime: now
  }
})
