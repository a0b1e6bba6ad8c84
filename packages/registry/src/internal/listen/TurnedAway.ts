/** Answers to requests that never reach the handler. Each is the last one on its connection. */
import * as DistributionError from "@spegel-ts/oci/DistributionError"
import type { IncomingMessage, ServerResponse } from "node:http"
import type { Socket } from "node:net"
import type { Duplex } from "node:stream"
import { isIdle, type Place } from "./ConnectionPlaces.ts"

/** The largest head of a request, in bytes. */
export const maxHeaderSize = 16 * 1024

export const turnAway = (response: ServerResponse, error: DistributionError.DistributionError): void => {
  const body = error.body()
  response.writeHead(error.status, {
    "content-type": "application/json",
    "content-length": Buffer.byteLength(body),
    connection: "close"
  }).end(body)
}

/** Answers bytes that Node's parser could not read as a request. `status` includes the reason phrase. */
const answerRaw = (socket: Duplex, status: string, error: DistributionError.DistributionError, fields = ""): void => {
  const body = error.body()
  socket.end(
    `HTTP/1.1 ${status}\r\n${fields}content-type: application/json\r\ncontent-length: ${
      Buffer.byteLength(body)
    }\r\nconnection: close\r\n\r\n${body}`
  )
}

/** Tells a client why the parser refused its request. */
export const brokenRequest = (error: NodeJS.ErrnoException, socket: Socket, place: Place | undefined): void => {
  if (!socket.writable || error.code === "ECONNRESET" || error.code === "ERR_HTTP_REQUEST_TIMEOUT") {
    socket.destroy()
    return
  }
  // An answer is out or on its way, to the request before or to this one's head: the client would take these bytes for its own.
  if (place?.response !== undefined && !(isIdle(place) && place.response.req.complete)) return socket.destroySoon()
  return error.code === "HPE_HEADER_OVERFLOW"
    ? answerRaw(
      socket,
      "431 Request Header Fields Too Large",
      DistributionError.nameInvalid(`the request's headers are larger than ${maxHeaderSize} bytes`)
    )
    : answerRaw(socket, "400 Bad Request", DistributionError.nameInvalid("the request is not valid HTTP/1.1"))
}

/** Answers `CONNECT`, which asks for a tunnel. */
export const tunnel = (_request: IncomingMessage, socket: Duplex): void =>
  answerRaw(
    socket,
    "405 Method Not Allowed",
    DistributionError.unsupported("this is not a proxy"),
    "allow: GET, HEAD\r\n"
  )
