/**
 * The standard `OTEL_*` variables (OpenTelemetry specification 1.4x, "Environment Variable Specification" and "OTLP
 * Exporter Configuration"), as far as traces over HTTP go. As it demands, a value that cannot be used is complained
 * about and left out: telemetry is no reason not to start.
 */
import { Option, Redacted } from "effect"
import { defaultSampler, type Sampler, samplers } from "./Sampler.ts"

export type Environment = Readonly<Record<string, string | undefined>>

/** How to export traces. */
export interface TraceExport {
  /** Where spans are posted to. */
  readonly url: URL
  readonly protocol: "http/json" | "http/protobuf"
  /** They often carry a key. */
  readonly headers: Redacted.Redacted<Readonly<Record<string, string>>>
  readonly gzip: boolean
  /** Milliseconds that one request may take. */
  readonly timeout: number
  /** Milliseconds that sending one batch may take, with all retries. */
  readonly exportTimeout: number
  /** Milliseconds after which spans are sent, if they do not fill a batch before. */
  readonly scheduleDelay: number
  /** Spans that wait to be sent; those beyond are dropped. */
  readonly maxQueueSize: number
  readonly maxBatchSize: number
  readonly sampler: Sampler
  /** Of the resource: what runs here, and where. */
  readonly attributes: Readonly<Record<string, string>>
}

export interface OtelEnvironment {
  /** None where nothing is to be exported. */
  readonly traces: Option.Option<TraceExport>
  /** What was set and cannot be used, each with what is done instead. */
  readonly complaints: ReadonlyArray<string>
}

/** What `service.name` is where nobody says. */
const defaultServiceName = "spegel"
const maxInteger = 2 ** 31 - 1

/** Reads them. `attributes` describe the process; variables go before them. */
export const read = (environment: Environment, attributes: Readonly<Record<string, string>>): OtelEnvironment => {
  const complaints: Array<string> = []
  const nothing = { traces: Option.none(), complaints }
  const complain = (name: string, expected: string, instead: string) => {
    complaints.push(`${name}: expected ${expected}; ${instead}`)
  }

  /** The first of the variables that is set; empty is as good as not set. */
  const find = (...names: ReadonlyArray<string>) => {
    const name = names.find((name) => (environment[name]?.trim() ?? "") !== "")
    return name === undefined ? undefined : { name, value: environment[name]?.trim() ?? "" }
  }
  const integer = (fallback: number, ...names: ReadonlyArray<string>) => {
    const found = find(...names)
    if (found === undefined) return fallback
    const value = /^\d+$/.test(found.value) ? Number(found.value) : 0
    if (value > 0 && value <= maxInteger) return value
    complain(found.name, `a whole number from 1 to ${maxInteger}`, `${fallback} is taken`)
    return fallback
  }
  const choice = <A>(options: ReadonlyMap<string, A>, fallback: A, ...names: ReadonlyArray<string>): A => {
    const found = find(...names)
    if (found === undefined) return fallback
    const chosen = options.get(found.value.toLowerCase())
    if (chosen !== undefined) return chosen
    complain(found.name, `one of ${[...options.keys()].join(", ")}`, "the default is taken")
    return fallback
  }
  /** `key=value,key=value`, values percent-encoded. The whole is left out where a part is wrong. */
  const pairs = (valid: (key: string, value: string) => boolean, ...names: ReadonlyArray<string>) => {
    const found = find(...names)
    const record: Record<string, string> = {}
    if (found === undefined) return record
    for (const pair of found.value.split(",").map((pair) => pair.trim()).filter((pair) => pair !== "")) {
      const [, key = "", text = ""] = /^([^=]*)=(.*)$/s.exec(pair) ?? []
      const value = decode(text.trim())
      if (value === undefined || !valid(key.trim(), value)) {
        // A value may be a secret: none is repeated.
        complain(found.name, "key=value pairs with commas between, values percent-encoded", "it is left out")
        return {}
      }
      record[key.trim()] = value
    }
    return record
  }

  if (find("OTEL_SDK_DISABLED")?.value.toLowerCase() === "true") return nothing
  const exporters = find("OTEL_TRACES_EXPORTER")
  const wanted = (exporters?.value ?? "otlp").split(",").map((name) => name.trim().toLowerCase())
  if (exporters !== undefined && wanted.some((name) => name !== "otlp" && name !== "none")) {
    complain(exporters.name, "otlp or none", "no other exporter is used")
  }
  const endpoint = find("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
  if (endpoint === undefined || !wanted.includes("otlp")) return nothing
  const url = URL.parse(endpoint.value)
  if (url === null || !/^https?:$/.test(url.protocol) || url.username !== "" || url.password !== "") {
    complain(endpoint.name, "a URL such as http://collector:4318, without user or password", "no traces are exported")
    return nothing
  }
  if (endpoint.name === "OTEL_EXPORTER_OTLP_ENDPOINT") url.pathname = `${url.pathname.replace(/\/$/, "")}/v1/traces`

  const protocol = find("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
  const value = protocol?.value.toLowerCase() ?? "http/protobuf"
  if (value !== "http/protobuf" && value !== "http/json") {
    // Another protocol has another port: there is no use in speaking HTTP to it.
    complain(protocol?.name ?? "", "http/protobuf or http/json (port 4318)", "no traces are exported")
    return nothing
  }

  const ratio = find("OTEL_TRACES_SAMPLER_ARG")
  const share = ratio === undefined ? 1 : Number(ratio.value)
  const usable = share >= 0 && share <= 1
  if (ratio !== undefined && !usable) complain(ratio.name, "a number from 0 to 1", "1 is taken")

  const maxQueueSize = integer(2048, "OTEL_BSP_MAX_QUEUE_SIZE")
  const serviceName = find("OTEL_SERVICE_NAME")
  return {
    complaints,
    traces: Option.some({
      url,
      protocol: value,
      headers: Redacted.make(pairs(isHeader, "OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS")),
      gzip: choice(
        new Map([["gzip", true], ["none", false]]),
        false,
        "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION",
        "OTEL_EXPORTER_OTLP_COMPRESSION"
      ),
      timeout: integer(10_000, "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"),
      exportTimeout: integer(30_000, "OTEL_BSP_EXPORT_TIMEOUT"),
      scheduleDelay: integer(5000, "OTEL_BSP_SCHEDULE_DELAY"),
      maxQueueSize,
      maxBatchSize: Math.min(maxQueueSize, integer(512, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE")),
      sampler: choice(samplers, () => defaultSampler, "OTEL_TRACES_SAMPLER")(usable ? share : 1),
      attributes: {
        "service.name": defaultServiceName,
        ...attributes,
        ...pairs(isAttribute, "OTEL_RESOURCE_ATTRIBUTES"),
        ...(serviceName === undefined ? {} : { "service.name": serviceName.value })
      }
    })
  }
}

/** RFC 9110, sections 5.1 and 5.5. */
const isHeader = (name: string, value: string): boolean =>
  /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(name) && /^[\t\x20-\x7e]*$/.test(value)

const isAttribute = (name: string): boolean => name !== ""

const decode = (text: string): string | undefined => {
  try {
    return decodeURIComponent(text)
  } catch {
    return undefined
  }
}
