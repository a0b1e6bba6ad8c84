/** Which traces are recorded, as `OTEL_TRACES_SAMPLER` says. The whole of a trace is decided about at its root. */
import type { AnySpan } from "effect/Tracer"

/** Whether to record a request whose trace begins here (no parent) or came from another process. */
export type Sampler = (traceId: string, parent: AnySpan | undefined) => boolean

const alwaysOn: Sampler = () => true
const alwaysOff: Sampler = () => false

/** Of a trace id's last 56 bits, those that fit a double: every process decides alike about the same trace. */
const randomBits = 52

/** Records this share of traces, from 0 to 1. */
const traceIdRatio = (ratio: number): Sampler => (traceId) =>
  Number.parseInt(traceId.slice(-randomBits / 4), 16) >= (1 - ratio) * 2 ** randomBits

/** What the process before has decided holds, so that a trace is whole or not there. */
const parentBased = (root: Sampler): Sampler => (traceId, parent) =>
  parent === undefined ? root(traceId, parent) : parent.sampled

/** The samplers that the OpenTelemetry specification names, given the ratio of `OTEL_TRACES_SAMPLER_ARG`. */
export const samplers: ReadonlyMap<string, (ratio: number) => Sampler> = new Map([
  ["always_on", () => alwaysOn],
  ["always_off", () => alwaysOff],
  ["traceidratio", traceIdRatio],
  ["parentbased_always_on", () => parentBased(alwaysOn)],
  ["parentbased_always_off", () => parentBased(alwaysOff)],
  ["parentbased_traceidratio", (ratio) => parentBased(traceIdRatio(ratio))]
])

/** What the specification wants where nothing is set. */
export const defaultSampler: Sampler = parentBased(alwaysOn)
