/** Spans as an OTLP collector receives them, as JSON or protobuf. */
import { BinaryReader, WireType } from "@bufbuild/protobuf/wire"

export type Attributes = Readonly<Record<string, unknown>>

export interface ReceivedSpan {
  readonly traceId: string
  readonly spanId: string
  /** Empty for the first span of a trace. */
  readonly parentSpanId: string
  readonly name: string
  readonly kind: number
  /** Nanoseconds since the epoch. */
  readonly start: bigint
  readonly end: bigint
  readonly attributes: Attributes
  readonly status: "unset" | "ok" | "error"
  readonly message: string
  /** Of the process that the span is from. */
  readonly resource: Attributes
}

interface AnyValue {
  readonly stringValue?: string
  readonly boolValue?: boolean
  readonly intValue?: string | number
  readonly doubleValue?: number
  readonly arrayValue?: { readonly values: ReadonlyArray<AnyValue> }
}
type KeyValues = ReadonlyArray<{ readonly key: string; readonly value: AnyValue }>
interface TracesData {
  readonly resourceSpans: ReadonlyArray<{
    readonly resource: { readonly attributes: KeyValues }
    readonly scopeSpans: ReadonlyArray<{
      readonly spans: ReadonlyArray<{
        readonly traceId: string
        readonly spanId: string
        readonly parentSpanId?: string
        readonly name: string
        readonly kind: number
        readonly startTimeUnixNano: string
        readonly endTimeUnixNano: string
        readonly attributes: KeyValues
        readonly status?: { readonly code?: number; readonly message?: string }
      }>
    }>
  }>
}

/** Fields of a message by number, each with all its values; which of them are messages is the reader's to know. */
type Fields = Map<number, Array<Uint8Array | bigint>>

const fieldsOf = (bytes: Uint8Array): Fields => {
  const reader = new BinaryReader(bytes)
  const fields: Fields = new Map()
  while (reader.pos < reader.len) {
    const [number, type] = reader.tag()
    const value = type === WireType.LengthDelimited
      ? reader.bytes()
      : type === WireType.Bit64
      ? BigInt(reader.fixed64())
      : type === WireType.Varint
      ? BigInt(reader.int64())
      : BigInt(reader.fixed32())
    fields.set(number, [...fields.get(number) ?? [], value])
  }
  return fields
}

const bytesOf = (fields: Fields, number: number): ReadonlyArray<Uint8Array> =>
  (fields.get(number) ?? []).filter((value) => value instanceof Uint8Array)
const numberOf = (fields: Fields, number: number): bigint => {
  const [value] = fields.get(number) ?? []
  return typeof value === "bigint" ? value : 0n
}
const textOf = (fields: Fields, number: number, encoding: "hex" | "utf8" = "utf8"): string =>
  Buffer.from(bytesOf(fields, number)[0] ?? new Uint8Array()).toString(encoding)

const anyValueOf = (bytes: Uint8Array): AnyValue => {
  const fields = fieldsOf(bytes)
  if (fields.has(1)) return { stringValue: textOf(fields, 1) }
  if (fields.has(2)) return { boolValue: numberOf(fields, 2) === 1n }
  if (fields.has(3)) return { intValue: String(numberOf(fields, 3)) }
  if (fields.has(4)) {
    return { doubleValue: Buffer.from(new BigUint64Array([numberOf(fields, 4)]).buffer).readDoubleLE() }
  }
  return { arrayValue: { values: bytesOf(fieldsOf(bytesOf(fields, 5)[0] ?? new Uint8Array()), 1).map(anyValueOf) } }
}
const keyValuesOf = (fields: Fields, number: number): KeyValues =>
  bytesOf(fields, number).map(fieldsOf).map((pair) => ({
    key: textOf(pair, 1),
    value: anyValueOf(bytesOf(pair, 2)[0] ?? new Uint8Array())
  }))

/** Field numbers are those of opentelemetry-proto, trace/v1/trace.proto. */
const dataOf = (bytes: Uint8Array): TracesData => ({
  resourceSpans: bytesOf(fieldsOf(bytes), 1).map(fieldsOf).map((resourceSpans) => ({
    resource: { attributes: bytesOf(resourceSpans, 1).flatMap((resource) => keyValuesOf(fieldsOf(resource), 1)) },
    scopeSpans: bytesOf(resourceSpans, 2).map(fieldsOf).map((scopeSpans) => ({
      spans: bytesOf(scopeSpans, 2).map(fieldsOf).map((span) => ({
        traceId: textOf(span, 1, "hex"),
        spanId: textOf(span, 2, "hex"),
        parentSpanId: textOf(span, 4, "hex"),
        name: textOf(span, 5),
        kind: Number(numberOf(span, 6)),
        startTimeUnixNano: String(numberOf(span, 7)),
        endTimeUnixNano: String(numberOf(span, 8)),
        attributes: keyValuesOf(span, 9),
        status: bytesOf(span, 15).map(fieldsOf).map((status) => ({
          message: textOf(status, 2),
          code: Number(numberOf(status, 3))
        }))[0] ?? {}
      }))
    }))
  }))
})

const plain = (value: AnyValue): unknown =>
  value.arrayValue?.values.map(plain) ??
    (value.intValue === undefined ? value.stringValue ?? value.boolValue ?? value.doubleValue : Number(value.intValue))
const attributesOf = (pairs: KeyValues): Attributes =>
  Object.fromEntries(pairs.map(({ key, value }) => [key, plain(value)]))

/** By their numbers. */
const statuses = ["unset", "ok", "error"] as const

const spansOf = ({ resourceSpans }: TracesData): ReadonlyArray<ReceivedSpan> =>
  resourceSpans.flatMap(({ resource, scopeSpans }) =>
    scopeSpans.flatMap(({ spans }) =>
      spans.map((span) => ({
        traceId: span.traceId,
        spanId: span.spanId,
        parentSpanId: span.parentSpanId ?? "",
        name: span.name,
        kind: span.kind,
        start: BigInt(span.startTimeUnixNano),
        end: BigInt(span.endTimeUnixNano),
        attributes: attributesOf(span.attributes),
        status: statuses[span.status?.code ?? 0] ?? "unset",
        message: span.status?.message ?? "",
        resource: attributesOf(resource.attributes)
      }))
    )
  )

/** The spans of an export request. */
export const fromJson = (text: string): ReadonlyArray<ReceivedSpan> => spansOf(JSON.parse(text) as TracesData)

export const fromProtobuf = (bytes: Uint8Array): ReadonlyArray<ReceivedSpan> => spansOf(dataOf(bytes))
