/**
 * libp2p's TCP with one write for each message. By itself it writes each part separately: noise's two bytes of length and
 * its ciphertext cost two system calls and two packets, and wake the receiver twice.
 */
import type { MultiaddrConnection, Transport, Upgrader } from "@libp2p/interface"
import * as Libp2pTcp from "@libp2p/tcp"

const whole = (connection: MultiaddrConnection): MultiaddrConnection => {
  const send = connection.send.bind(connection)
  connection.send = (data) => send(data.subarray())
  return connection
}

const wholeUpgrader = (upgrader: Upgrader): Upgrader => ({
  upgradeInbound: (connection, options) => upgrader.upgradeInbound(whole(connection), options),
  upgradeOutbound: (connection, options) => upgrader.upgradeOutbound(whole(connection), options),
  createInboundAbortSignal: (signal) => upgrader.createInboundAbortSignal(signal),
  getStreamMuxers: () => upgrader.getStreamMuxers(),
  getConnectionEncrypters: () => upgrader.getConnectionEncrypters()
})

export const tcp = (options: Libp2pTcp.TCPOptions) => (components: Libp2pTcp.TCPComponents): Transport => {
  const transport = Libp2pTcp.tcp(options)(components)
  const dial = transport.dial.bind(transport)
  const createListener = transport.createListener.bind(transport)
  transport.dial = (address, options) => dial(address, { ...options, upgrader: wholeUpgrader(options.upgrader) })
  transport.createListener = (options) => createListener({ ...options, upgrader: wholeUpgrader(options.upgrader) })
  return transport
}
