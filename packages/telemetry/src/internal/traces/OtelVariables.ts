/**
 * The standard `OTEL_*` variables, checked before the OpenTelemetry SDK reads them. The SDK drops some wrong values without
 * a word (headers, attributes), and with others it never ends (a batch of no spans). As the specification demands, a value
 * that cannot be used is named in a complaint and left out: telemetry is no reason not to start.
 */
import { Option } from "effect"
import { accessSync, constants } from "node:fs"

export type Environment = Readonly<Record<string, string | undefined>>

/** Protocols of OTLP, as `OTEL_EXPORTER_OTLP_PROTOCOL` names them. */
const protocols = ["http/protobuf", "http/json", "grpc"] as const
export type Protocol = typeof protocols[number]

/** Where traces go, and what the SDK is to read. */
export interface TraceExport {
  readonly protocol: Protocol
  /** The collector without path, user or query, for logs. */
  readonly collector: string
  /** Spans that may wait to be sent. */
  readonly maxQueueSize: number
  /** Where resource attributes come from, by the names in `OTEL_NODE_RESOURCE_DETECTORS`. */
  readonly detectors: ReadonlySet<string>
  /** The variables without those that cannot be used. */
  readonly environment: Environment
}

export interface OtelVariables {
  /** None where no collector is named, or traces are turned off. */
  readonly traces: Option.Option<TraceExport>
  /** One for each variable that cannot be used: its name, what was expected and what happens instead. Never its value. */
  readonly complaints: ReadonlyArray<string>
}

interface Rule {
  readonly names: RegExp
  readonly expected: string
  /** The value as the SDK understands it, or `undefined` if it is wrong. */
  readonly read: (value: string) => string | undefined
}

/** As the Node SDK names them. */
const resourceDetectors: ReadonlyArray<string> = ["env", "host", "os", "process", "serviceinstance", "all", "none"]

const defaultQueueSize = 2048
const maxInteger = 2 ** 31 - 1

const rule = (names: RegExp, expected: string, valid: (value: string) => boolean): Rule => ({
  names,
  expected,
  read: (value) => valid(value) ? value : undefined
})
const wholeNumber = (names: RegExp, least: number) =>
  rule(
    names,
    `a whole number from ${least} to ${maxInteger}`,
    (value) => /^\d+$/.test(value) && Number(value) >= least && Number(value) <= maxInteger
  )
/** Names in any case; the SDK knows them in lower case. */
const oneOf = (names: RegExp, ...options: ReadonlyArray<string>): Rule => ({
  names,
  expected: `one of ${options.join(", ")}`,
  read: (value) => options.find((option) => option === value.toLowerCase())
})

const listOf = (value: string): ReadonlyArray<string> => value.split(",").map((item) => item.trim()).filter(Boolean)

const decode = (text: string): string | undefined => {
  try {
    return decodeURIComponent(text.trim())
  } catch {
    return undefined
  }
}
/** Whether a list of `key=value` is well-formed; values may contain `=` where the SDK allows it. */
const arePairs = (valid: (key: string, value: string) => boolean) => (value: string) =>
  listOf(value).every((pair) => {
    const [, key, text] = /^([^=;]+)=([^;]*)$/.exec(pair) ?? []
    const [name, decoded] = [decode(key ?? ""), decode(text ?? "")]
    return name !== undefined && name !== "" && decoded !== undefined && valid(name, decoded)
  })
/** RFC 9110, sections 5.1 and 5.5. */
const isHeader = (name: string, value: string) =>
  /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(name) && /^[\t\x20-\x7e]+$/.test(value)
/** The SDK's own limit, beyond which it takes no attribute at all. */
const isAttribute = (name: string, value: string) => Math.max(name.length, value.length) < 256

const isReadable = (path: string): boolean => {
  try {
    accessSync(path, constants.R_OK)
    return true
  } catch {
    return false
  }
}

const pairs = "key=value pairs with commas between, other special characters percent-encoded"
const rules: ReadonlyArray<Rule> = [
  wholeNumber(/^OTEL_(?:BSP_.*|EXPORTER_OTLP_(?:TRACES_)?TIMEOUT|.*LENGTH_LIMIT)$/, 1),
  wholeNumber(/^OTEL_.*COUNT_LIMIT$/, 0),
  oneOf(/^OTEL_SDK_DISABLED$|^OTEL_EXPORTER_OTLP_(?:TRACES_)?INSECURE$/, "true", "false"),
  oneOf(/^OTEL_EXPORTER_OTLP_(?:TRACES_)?COMPRESSION$/, "gzip", "none"),
  oneOf(/^OTEL_EXPORTER_OTLP_(?:TRACES_)?PROTOCOL$/, ...protocols),
  oneOf(
    /^OTEL_TRACES_SAMPLER$/,
    ...["always_on", "always_off", "traceidratio"].flatMap((sampler) => [sampler, `parentbased_${sampler}`])
  ),
  rule(/^OTEL_TRACES_SAMPLER_ARG$/, "a number from 0 to 1", (value) => Number(value) >= 0 && Number(value) <= 1),
  rule(/^OTEL_EXPORTER_OTLP_(?:TRACES_)?HEADERS$/, pairs, arePairs(isHeader)),
  rule(
    /^OTEL_RESOURCE_ATTRIBUTES$/,
    pairs,
    (value) => arePairs(isAttribute)(value) && listOf(value).every((pair) => pair.split("=").length === 2)
  ),
  rule(
    /^OTEL_NODE_RESOURCE_DETECTORS$/,
    `a list of ${resourceDetectors.join(", ")}`,
    (value) => listOf(value).every((name) => resourceDetectors.includes(name))
  ),
  rule(
    /^OTEL_EXPORTER_OTLP_(?:TRACES_)?(?:(?:CLIENT_)?CERTIFICATE|CLIENT_KEY)$/,
    "the path of a readable file",
    isReadable
  )
]

const endpointUrl = (value: string, protocol: Protocol): URL | undefined => {
  const isBare = protocol === "grpc" && !/^\w+:\/\//.test(value)
  const url = URL.parse(isBare ? `https://${value}` : value)
  const schemes = protocol === "grpc" ? /^(?:https?|unix):$/ : /^https?:$/
  return url !== null && schemes.test(url.protocol) && url.username === "" && url.password === "" ? url : undefined
}

/** Reads and checks the variables. Those that concern other signals than traces are let through. */
export const read = (environment: Environment): OtelVariables => {
  const complaints: Array<string> = []
  const nothing = { traces: Option.none(), complaints }
  const usable: Record<string, string | undefined> = { ...environment }
  for (const [name, value] of Object.entries(environment)) {
    // Empty is as good as not set.
    if (!name.startsWith("OTEL_") || value === undefined || value.trim() === "") continue
    const checked = rules.find(({ names }) => names.test(name))
    usable[name] = checked === undefined ? value.trim() : checked.read(value.trim())
    if (checked !== undefined && usable[name] === undefined) {
      complaints.push(`${name}: expected ${checked.expected}; it is left out`)
    }
  }
  const find = (...names: ReadonlyArray<string>) => names.find((name) => (environment[name]?.trim() ?? "") !== "")

  const endpoint = find("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
  if (endpoint === undefined || usable["OTEL_SDK_DISABLED"] === "true") return { ...nothing, complaints: [] }
  const exporters = listOf(environment["OTEL_TRACES_EXPORTER"]?.toLowerCase() ?? "")
  if (exporters.some((name) => name !== "otlp" && name !== "none")) {
    complaints.push("OTEL_TRACES_EXPORTER: expected otlp or none; no other exporter is used")
  }
  if (exporters.length > 0 && !exporters.includes("otlp")) return nothing
  const named = find("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
  const protocol = named === undefined ? "http/protobuf" : usable[named] as Protocol | undefined
  // Another protocol has another port: nothing is gained by trying.
  if (protocol === undefined) return nothing
  const url = endpointUrl(usable[endpoint] ?? "", protocol)
  if (url === undefined) {
    complaints.push(
      `${endpoint}: expected a URL such as http://collector:4318, without user or password; no traces are exported`
    )
    return nothing
  }
  return {
    complaints,
    traces: Option.some({
      protocol,
      collector: url.protocol === "unix:" ? url.href : url.origin,
      maxQueueSize: Number(usable["OTEL_BSP_MAX_QUEUE_SIZE"] ?? defaultQueueSize),
      detectors: new Set(listOf(usable["OTEL_NODE_RESOURCE_DETECTORS"] ?? "env")),
      environment: usable
    })
  }
}
