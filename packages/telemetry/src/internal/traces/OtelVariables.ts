/**
 * The standard `OTEL_*` variables, checked before the OpenTelemetry SDK reads them. The SDK drops some wrong values without
 * a word (headers, attributes), and hangs on others (batches of no spans). As the specification demands, a value that cannot
 * be used is named in a complaint and left out: the program starts without it.
 */
import { Option } from "effect"
import { accessSync, constants } from "node:fs"
import { validateHeaderName, validateHeaderValue } from "node:http"

export type Environment = Readonly<Record<string, string | undefined>>

/** Protocols of OTLP, as `OTEL_EXPORTER_OTLP_PROTOCOL` names them. */
const protocols = ["http/protobuf", "http/json", "grpc"] as const
export type Protocol = typeof protocols[number]

/** The collector to send traces to, and the variables for the SDK. */
export interface TraceExport {
  readonly protocol: Protocol
  /** The collector without path, user or query, for logs. */
  readonly collector: string
  /** Spans that may wait to be sent. */
  readonly maxQueueSize: number
  /** Spans that are sent at once. */
  readonly maxBatchSize: number
  /** The sources of resource attributes, by the names in `OTEL_NODE_RESOURCE_DETECTORS`. */
  readonly detectors: ReadonlyArray<string>
  /** The variables without those that cannot be used. */
  readonly environment: Environment
}

export interface OtelVariables {
  /** None if no collector is named, or traces are turned off. */
  readonly traces: Option.Option<TraceExport>
  /** One for each variable that cannot be used: its name, what was expected and what happens instead. Never its value. */
  readonly complaints: ReadonlyArray<string>
}

const listOf = (value: string): ReadonlyArray<string> => value.split(",").map((item) => item.trim()).filter(Boolean)

type Rule = readonly [names: RegExp, expected: string, valid: (value: string) => boolean]

const maxInteger = 2 ** 31 - 1
const wholeNumber = (least: number, names: RegExp): Rule => [
  names,
  `a whole number from ${least} to ${maxInteger}`,
  (value) => /^\d+$/.test(value) && Number(value) >= least && Number(value) <= maxInteger
]
const oneOf = (options: ReadonlyArray<string>, names: RegExp): Rule => [
  names,
  `one of ${options.join(", ")}`,
  (value) => options.includes(value)
]
/** `valid` may also throw. */
const every = (names: RegExp, expected: string, valid: (item: string) => boolean | void): Rule => [
  names,
  expected,
  (value) => {
    try {
      return listOf(value).every((item) => valid(item) !== false)
    } catch {
      return false
    }
  }
]

const pairs = "key=value pairs with commas between, other special characters percent-encoded"
const samplers = ["always_on", "always_off", "traceidratio"].flatMap((name) => [name, `parentbased_${name}`])
const detectors = ["env", "host", "os", "process", "serviceinstance", "all", "none"]

const rules: ReadonlyArray<Rule> = [
  wholeNumber(1, /^OTEL_(?:BSP_.*|EXPORTER_OTLP_(?:TRACES_)?TIMEOUT|.*LENGTH_LIMIT)$/),
  wholeNumber(0, /^OTEL_.*COUNT_LIMIT$/),
  oneOf(["true", "false"], /^OTEL_(?:SDK_DISABLED|EXPORTER_OTLP_(?:TRACES_)?INSECURE)$/),
  oneOf(["gzip", "none"], /^OTEL_EXPORTER_OTLP_(?:TRACES_)?COMPRESSION$/),
  oneOf(protocols, /^OTEL_EXPORTER_OTLP_(?:TRACES_)?PROTOCOL$/),
  oneOf(samplers, /^OTEL_TRACES_SAMPLER$/),
  [/^OTEL_TRACES_SAMPLER_ARG$/, "a number from 0 to 1", (value) => Number(value) >= 0 && Number(value) <= 1],
  every(/^OTEL_NODE_RESOURCE_DETECTORS$/, `a list of ${detectors.join(", ")}`, (name) => detectors.includes(name)),
  every(/^OTEL_EXPORTER_OTLP_(?:TRACES_)?HEADERS$/, pairs, (pair) => {
    // The SDK would cut a value at its semicolon.
    const [, name = "", value = ""] = /^([^=;]+)=([^;]+)$/.exec(pair) ?? []
    validateHeaderName(decodeURIComponent(name.trim()))
    validateHeaderValue(name, decodeURIComponent(value.trim()))
  }),
  every(/^OTEL_RESOURCE_ATTRIBUTES$/, pairs, (pair) => {
    const parts = pair.split("=").map((part) => decodeURIComponent(part.trim()))
    // The SDK drops all attributes if one is longer.
    return parts.length === 2 && parts[0] !== "" && parts.every(({ length }) => length < 256)
  }),
  every(
    /^OTEL_EXPORTER_OTLP_(?:TRACES_)?(?:(?:CLIENT_)?CERTIFICATE|CLIENT_KEY)$/,
    "the path of a readable file",
    (path) => accessSync(path, constants.R_OK)
  )
]
/** Variables whose values are names: the specification knows them in any case, the SDK in lower case. */
const nameValued = /(?:DISABLED|INSECURE|COMPRESSION|PROTOCOL|SAMPLER|EXPORTER)$/

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
  for (const [name, text = ""] of Object.entries(environment)) {
    // Empty is as good as not set.
    if (!name.startsWith("OTEL_") || text.trim() === "") continue
    const value = nameValued.test(name) ? text.trim().toLowerCase() : text.trim()
    const [, expected, valid] = rules.find(([names]) => names.test(name)) ?? []
    usable[name] = valid?.(value) === false ? undefined : value
    if (usable[name] === undefined) complaints.push(`${name}: expected ${expected}; it is left out`)
  }
  const find = (...names: ReadonlyArray<string>) => names.find((name) => (environment[name]?.trim() ?? "") !== "")

  const endpoint = find("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
  if (endpoint === undefined || usable["OTEL_SDK_DISABLED"] === "true") return { ...nothing, complaints: [] }
  const exporters = listOf(usable["OTEL_TRACES_EXPORTER"] ?? "")
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
  const maxQueueSize = Number(usable["OTEL_BSP_MAX_QUEUE_SIZE"] ?? 2048)
  return {
    complaints,
    traces: Option.some({
      protocol,
      collector: url.protocol === "unix:" ? url.href : url.origin,
      maxQueueSize,
      maxBatchSize: Math.min(maxQueueSize, Number(usable["OTEL_BSP_MAX_EXPORT_BATCH_SIZE"] ?? 512)),
      detectors: listOf(usable["OTEL_NODE_RESOURCE_DETECTORS"] ?? "env"),
      environment: usable
    })
  }
}
