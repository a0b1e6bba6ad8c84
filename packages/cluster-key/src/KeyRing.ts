/**
 * The keys that nodes of one cluster share. A cluster key file has a key on each line: 32 random bytes in base64. The first line
 * signs; all lines are accepted, so that a key can be replaced while nodes read the file minutes apart.
 *
 * Each purpose has keys of its own, derived by HKDF-SHA256 (RFC 5869): what is signed for one purpose is worth nothing for another.
 */
import { Data, Result } from "effect"
import { createHash, createHmac, hkdfSync, randomBytes, timingSafeEqual } from "node:crypto"

/** What a key signs: the proof of membership, HTTP between peers, or the token of a client. */
export type Purpose = "router" | "registry" | "client"

/** The parts of a signed message. Each is signed with its length, so that no two lists of parts are the same bytes. */
export type Parts = ReadonlyArray<string | Uint8Array>

/** A line of a cluster key file is not a key. The message has the line's number and never its text. */
export class InvalidClusterKey extends Data.TaggedError("InvalidClusterKey")<{ readonly reason: string }> {
  override get message() {
    return `${this.reason}: expected 32 random bytes in base64 on each line, as spegel cluster-key generate prints them`
  }
}

const keyLength = 32
/** Keys that a file may have: the one in use, and those that are being replaced. */
const maxKeys = 8
/** The length of a signature, in bytes. */
export const signatureLength = 32

const purposes = ["router", "registry", "client"] as const
const salt = "spegel-ts cluster key v1"

/** A key for one purpose, derived from a line of the file. */
export class PurposeKey {
  /** Names the key to others without telling anything about it: 16 hexadecimal digits. */
  readonly id: string
  readonly #secret: Uint8Array

  constructor(secret: Uint8Array, purpose: Purpose) {
    this.#secret = new Uint8Array(hkdfSync("sha256", secret, salt, purpose, keyLength))
    this.id = createHash("sha256").update("id").update(this.#secret).digest("hex").slice(0, 16)
  }

  /** HMAC-SHA256 of the parts. */
  sign(parts: Parts): Buffer {
    const hmac = createHmac("sha256", this.#secret)
    const length = Buffer.allocUnsafe(4)
    for (const part of parts) {
      length.writeUInt32BE(typeof part === "string" ? Buffer.byteLength(part) : part.length)
      hmac.update(length).update(part)
    }
    return hmac.digest()
  }

  /** Whether this key made the signature. Takes as long for a wrong one as for a right one. */
  verifies(parts: Parts, signature: Uint8Array): boolean {
    return signature.length === signatureLength && timingSafeEqual(this.sign(parts), signature)
  }
}

/** The keys of one file. The first of each purpose signs. */
export class KeyRing {
  readonly #keys: Readonly<Record<Purpose, ReadonlyArray<PurposeKey>>>

  private constructor(secrets: ReadonlyArray<Uint8Array>) {
    const derive = (purpose: Purpose) => secrets.map((secret) => new PurposeKey(secret, purpose))
    this.#keys = { router: derive("router"), registry: derive("registry"), client: derive("client") }
  }

  /** Parses the text of a cluster key file. Blank lines do not count, nor does a line that repeats another. */
  static parse(text: string): Result.Result<KeyRing, InvalidClusterKey> {
    const secrets = new Map<string, Uint8Array>()
    for (const [index, line] of text.split("\n").entries()) {
      const key = line.trim()
      if (key === "") continue
      const secret = Buffer.from(key, "base64")
      if (secret.length !== keyLength || secret.toString("base64") !== key) {
        return Result.fail(new InvalidClusterKey({ reason: `line ${index + 1} is not a key` }))
      }
      if (secret.every((byte) => byte === secret[0])) {
        return Result.fail(new InvalidClusterKey({ reason: `line ${index + 1} is not random` }))
      }
      secrets.set(key, secret)
    }
    if (secrets.size === 0) return Result.fail(new InvalidClusterKey({ reason: "there is no key" }))
    if (secrets.size > maxKeys) {
      return Result.fail(new InvalidClusterKey({ reason: `there are ${secrets.size} keys, more than ${maxKeys}` }))
    }
    return Result.succeed(new KeyRing([...secrets.values()]))
  }

  /** The key that signs for a purpose, unless the other side accepts older ones only. */
  current(purpose: Purpose): PurposeKey {
    const [first] = this.#keys[purpose]
    if (first === undefined) throw new Error("a key ring has at least one key")
    return first
  }

  /** The ids of all keys for a purpose, the one that signs first. */
  ids(purpose: Purpose): ReadonlyArray<string> {
    return this.#keys[purpose].map(({ id }) => id)
  }

  /** The key with this id; undefined if it is not, or no longer, in the file. */
  find(purpose: Purpose, id: string): PurposeKey | undefined {
    return this.#keys[purpose].find((key) => key.id === id)
  }

  /** The first of this node's keys that the other side has too. */
  common(purpose: Purpose, ids: ReadonlyArray<string>): PurposeKey | undefined {
    return this.#keys[purpose].find(({ id }) => ids.includes(id))
  }

  /** Whether two rings have the same keys in the same order. */
  equals(other: KeyRing): boolean {
    return purposes.every((purpose) => this.ids(purpose).join() === other.ids(purpose).join())
  }
}

/** A new key: a line for a cluster key file. */
export const generate = (): string => randomBytes(keyLength).toString("base64")
