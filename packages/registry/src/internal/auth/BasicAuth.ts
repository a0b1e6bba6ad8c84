/** HTTP basic authentication (RFC 7617) of clients of the registry. */
import { Redacted } from "effect"
import { createHash, timingSafeEqual } from "node:crypto"

/** The `WWW-Authenticate` of a 401. */
export const challenge = `Basic realm="spegel-ts", charset="UTF-8"`

const hash = (text: string) => createHash("sha256").update(text).digest()

/** Returns whether an `Authorization` header has these credentials. Wrong ones take as long as right ones. */
export const verifier = (credentials: {
  readonly username: string
  readonly password: Redacted.Redacted
}): (authorization: string | undefined) => boolean => {
  const expected = hash(`${credentials.username}:${Redacted.value(credentials.password)}`)
  return (authorization) => {
    const encoded = /^basic ([A-Za-z0-9+/=]+)$/i.exec(authorization ?? "")?.[1] ?? ""
    return timingSafeEqual(expected, hash(Buffer.from(encoded, "base64").toString("utf8")))
  }
}
