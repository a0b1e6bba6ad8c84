/**
 * Connections to a collector over HTTP, with the certificates that the environment names. The SDK retries failed connections
 * in silence, and leaves idle ones open when it is shut down.
 */
import { convertLegacyHttpOptions } from "@opentelemetry/otlp-exporter-base/node-http"
import type { Agent, ClientRequestArgs } from "node:http"
import type { Duplex } from "node:stream"

export interface CollectorConnections {
  /** The exporters' option `httpAgentOptions`. */
  readonly agent: (protocol: string) => Promise<Agent>
  /** Closes all connections, and lets no new one be made. */
  readonly close: () => void
}

/** Reads `process.env`. `onFailure` is told of each connection that cannot be made. */
export const make = (onFailure: (error: Error) => void): CollectorConnections => {
  const { agentFactory } = convertLegacyHttpOptions({}, "TRACES", "v1/traces", {})
  let made: Agent | undefined
  let closed = false
  return {
    agent: async (protocol) => {
      const agent = await agentFactory(protocol)
      const connect = agent.createConnection.bind(agent)
      agent.createConnection = (
        options: ClientRequestArgs,
        callback?: (error: Error | null, stream: Duplex) => void
      ) => {
        if (closed) throw new Error("tracing has stopped")
        const socket = connect(options, callback)
        socket?.once("error", onFailure).once("connect", () => socket.off("error", onFailure))
        return socket
      }
      return made = agent
    },
    close: () => {
      closed = true
      made?.destroy()
    }
  }
}
