/**
 * The spans that explain a request (docs/tracing.md): what was asked for, whether this node holds it, which peers the lookup
 * found, what each peer sent and why it was left, whether the bytes were right. They go to the program's `Tracer`.
 *
 * A request's own span is named by method and route, as in `GET /v2/{name}/blobs/{digest}`. Attributes are OpenTelemetry's
 * for HTTP where it has them (semantic conventions 1.2x), and `spegel.*` otherwise.
 */

/** The spans within a request. */
export const spans = {
  parse: "parse",
  localLookup: "local lookup",
  peerLookup: "peer lookup",
  askPeer: "ask peer",
  wait: "wait for download",
  verify: "verify"
} as const

/** Their names, for an exporter that is to leave other spans out. */
export const names: ReadonlySet<string> = new Set(Object.values(spans))
