/** Checks the head of every request, whatever it asks for (RFC 9112, sections 3 and 6). */
import * as DistributionError from "@spegel-ts/oci/DistributionError"
import type { IncomingMessage } from "node:http"

/** `uri-host [":" port]`; may be empty if the target names no authority. */
const hostField = /^(?:\[[^\]\s/?#@]+\]|[A-Za-z0-9._~%!$&'()*+,;=-]*)(?::[0-9]*)?$/
const absoluteForm = /^https?:\/\/([^/?#]+)([^#]*)$/i
const endsChunked = /(?:^|,)[ \t]*chunked[ \t]*$/i

const hostsOf = ({ rawHeaders }: IncomingMessage): ReadonlyArray<string> =>
  rawHeaders.filter((_, index) => index % 2 === 1 && rawHeaders[index - 1]?.toLowerCase() === "host")

/** Why a request cannot be answered; undefined if it can. Otherwise its connection must be closed. */
export const refusal = (request: IncomingMessage): DistributionError.DistributionError | undefined => {
  const coding = request.headers["transfer-encoding"]
  // The end of the body is ambiguous: two readers could take its bytes for two different requests.
  if (coding !== undefined && (request.httpVersion !== "1.1" || !endsChunked.test(coding))) {
    return DistributionError.nameInvalid(
      "the last transfer coding of a request has to be chunked, and its version HTTP/1.1"
    )
  }
  const [host, ...more] = hostsOf(request)
  if (host === undefined) {
    return request.httpVersion === "1.1" ? DistributionError.nameInvalid("the request has no Host header") : undefined
  }
  if (more.length > 0) return DistributionError.nameInvalid("the request has several Host headers")
  return hostField.test(host)
    ? undefined
    : DistributionError.nameInvalid("the Host header is not a host, with or without a port")
}

/**
 * A request's target as path and query, or `*`; undefined if it is neither of these nor an absolute URL. The authority of an
 * absolute URL is dropped: this server answers under any name.
 */
export const originForm = (target: string): string | undefined => {
  if (target.startsWith("/") || target === "*") return target
  const [, authority = "", rest = ""] = absoluteForm.exec(target) ?? []
  if (authority === "" || !hostField.test(authority)) return undefined
  return rest.startsWith("/") ? rest : `/${rest}`
}
