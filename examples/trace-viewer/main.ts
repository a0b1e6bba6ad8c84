/** A collector for the terminal: takes OTLP/HTTP as JSON and prints each trace as a tree once no more of it comes. */
import { createServer, type IncomingMessage } from "node:http"
import { parseArgs } from "node:util"

interface Attribute {
  readonly key: string
  readonly value: {
    readonly stringValue?: string
    readonly intValue?: number | string
    readonly boolValue?: boolean
    readonly arrayValue?: { readonly values: ReadonlyArray<Attribute["value"]> }
  }
}
interface Span {
  readonly traceId: string
  readonly spanId: string
  readonly parentSpanId?: string
  readonly name: string
  readonly startTimeUnixNano: string
  readonly endTimeUnixNano: string
  readonly attributes: ReadonlyArray<Attribute>
}
interface Traces {
  readonly resourceSpans: ReadonlyArray<{ readonly scopeSpans: ReadonlyArray<{ readonly spans: ReadonlyArray<Span> }> }>
}

/** Attributes that are worth a place in a line. */
const shown = /^(?:server\.address|http\.response\.status_code|http\.response\.body\.size|error\.type|spegel\..*)$/

const textOf = ({ arrayValue, boolValue, intValue, stringValue }: Attribute["value"]): string =>
  arrayValue === undefined ? String(stringValue ?? intValue ?? boolValue) : arrayValue.values.map(textOf).join(", ")

const lineOf = (span: Span, root: Span): string => {
  const millis = (nanos: bigint) => (Number(nanos) / 1e6).toFixed(1)
  const [begin, end] = [BigInt(span.startTimeUnixNano), BigInt(span.endTimeUnixNano)]
  const facts = span.attributes.filter(({ key }) => shown.test(key)).map(({ key, value }) =>
    `${key.replace(/^(?:spegel|http\.response)\./, "")}=${textOf(value).replace(/(sha256:.{8}).*/, "$1")}`
  )
  return `${span.name}  ${millis(begin - BigInt(root.startTimeUnixNano))} +${millis(end - begin)} ms  ${
    facts.join(" ")
  }`
}

/** Lines of a span and of those below it, in the order in which they began. */
const treeOf = (span: Span, spans: ReadonlyArray<Span>, root: Span): ReadonlyArray<string> => {
  const children = spans.filter(({ parentSpanId }) => parentSpanId === span.spanId)
    .toSorted((a, b) => Number(BigInt(a.startTimeUnixNano) - BigInt(b.startTimeUnixNano)))
  return [
    lineOf(span, root),
    ...children.flatMap((child, index) => {
      const last = index === children.length - 1
      return treeOf(child, spans, root).map((line, row) =>
        `${row === 0 ? (last ? "└ " : "├ ") : last ? "  " : "│ "}${line}`
      )
    })
  ]
}

/** All trees of a trace: one, unless a client has begun it elsewhere. */
const print = (spans: ReadonlyArray<Span>): string => {
  const known = new Set(spans.map(({ spanId }) => spanId))
  return spans.filter(({ parentSpanId = "" }) => !known.has(parentSpanId))
    .map((root) => `${treeOf(root, spans, root).join("\n")}\n\n`).join("")
}

const bodyOf = async (request: IncomingMessage): Promise<Traces> => {
  const chunks: Array<Buffer> = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  return JSON.parse(Buffer.concat(chunks).toString()) as Traces
}

const { values } = parseArgs({
  options: { port: { type: "string", default: "4318" }, quiet: { type: "string", default: "6000" } }
})
/** The nodes of a trace send their parts each in their own time, every five seconds. */
const quietMillis = Number(values.quiet)
const traces = new Map<string, { readonly spans: Array<Span>; heard: number }>()

createServer((request, response) => {
  void bodyOf(request).then(({ resourceSpans }) => {
    for (const span of resourceSpans.flatMap(({ scopeSpans }) => scopeSpans.flatMap(({ spans }) => spans))) {
      const trace = traces.get(span.traceId) ?? { spans: [], heard: 0 }
      trace.spans.push(span)
      trace.heard = performance.now()
      traces.set(span.traceId, trace)
    }
    response.end("{}")
  }, () => response.writeHead(400).end("JSON is understood: OTEL_EXPORTER_OTLP_PROTOCOL=http/json\n"))
}).listen(Number(values.port), "127.0.0.1", () => process.stdout.write(`listening on 127.0.0.1:${values.port}\n\n`))

setInterval(() => {
  for (const [id, { heard, spans }] of traces) {
    if (performance.now() - heard < quietMillis) continue
    traces.delete(id)
    process.stdout.write(print(spans))
  }
}, 100)
