/**
 * A logger for libp2p that writes nothing. libp2p's own logger makes three loggers for each connection and stream even when
 * it is off, which is a measurable share of the cost of joining a large cluster.
 */
import type { ComponentLogger, Logger } from "@libp2p/interface"

const nothing = () => undefined
const silent: Logger = Object.assign(nothing, {
  enabled: false,
  error: nothing,
  trace: nothing,
  newScope: () => silent
})

export const silentLogger: ComponentLogger = { forComponent: () => silent }
