/** HTTP basic authentication (RFC 7617) of clients of the registry. */
import { Redacted } from "effect"
import { createHash, timingSafeEqual } from "node:crypto"

/** The `WWW-Authenticate` of a 401. */
export const challenge = `Basic realm="spegel-ts", charset="UTF-8"`

const hash = (text: string) => createHash("sha256").update(text).digest()

/** The user name and password of an `Authorization` header, joined by a colon; undefined if it has none. */
const pairOf = (authorization: string): string | undefined => {
  const encoded = /^basic ([A-Za-z0-9+/=]+)$/i.exec(authorization)?.[1]
  return encoded === undefined ? undefined : Buffer.from(encoded, "base64").toString("utf8")
}

/** The password of an `Authorization` header; undefined if it has none. */
export const passwordOf = (authorization: string): string | undefined => {
  const pair = pairOf(authorization)
  const colon = pair?.indexOf(":") ?? -1
  return colon === -1 ? undefined : pair?.slice(colon + 1)
}

/** Returns whether an `Authorization` header has these credentials. Wrong ones take as long as right ones. */
export const verifier = (credentials: {
  readonly username: string
  readonly password: Redacted.Redacted
}): (authorization: string) => boolean => {
  const expected = hash(`${credentials.username}:${Redacted.value(credentials.password)}`)
  return (authorization) => timingSafeEqual(expected, hash(pairOf(authorization) ?? ""))
}
