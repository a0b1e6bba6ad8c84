/**
 * A logger for libp2p that writes nothing. Its own writes nothing either unless it is told to, but makes three loggers for
 * each connection and stream, which is a measurable share of what it costs to join a large cluster.
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
