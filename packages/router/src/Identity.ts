/**
 * The key pair that a node is known by. Kept in `<data-dir>/private.key` as PKCS#8 PEM (Ed25519), the file that Go
 * Spegel keeps, so that a node keeps its peer id across restarts and migrations.
 */
import { privateKeyFromRaw } from "@libp2p/crypto/keys"
import type { PrivateKey } from "@libp2p/interface"
import { Data, Effect, Option } from "effect"
import { createPrivateKey, generateKeyPairSync, type KeyObject } from "node:crypto"
import { mkdir, readFile, rename, writeFile } from "node:fs/promises"
import { join } from "node:path"

/** The key file cannot be used; nothing was written. */
export class IdentityUnusable extends Data.TaggedError("IdentityUnusable")<{
  readonly path: string
  readonly reason: string
}> {
  override get message() {
    return `identity ${this.path}: ${this.reason}`
  }
}

const toLibp2p = (key: KeyObject): PrivateKey => {
  const { d = "", x = "" } = key.export({ format: "jwk" })
  return privateKeyFromRaw(Buffer.concat([Buffer.from(d, "base64url"), Buffer.from(x, "base64url")]))
}

const generate = (): KeyObject => generateKeyPairSync("ed25519").privateKey

const read = async (path: string): Promise<Option.Option<string>> => {
  try {
    return Option.some(await readFile(path, "utf8"))
  } catch (cause) {
    if (typeof cause === "object" && cause !== null && "code" in cause && cause.code === "ENOENT") return Option.none()
    throw cause
  }
}

const parse = (path: string, pem: string) =>
  Effect.try({
    try: () => createPrivateKey(pem),
    catch: () =>
      new IdentityUnusable({
        path,
        reason: "is no PEM private key; restore it, or remove it to let the node start under a new peer id"
      })
  }).pipe(Effect.filterOrFail(
    (key) => key.asymmetricKeyType === "ed25519",
    (key) => new IdentityUnusable({ path, reason: `is a key of type ${key.asymmetricKeyType}, but must be ed25519` })
  ))

/** The identity kept in `dataDir`, made there if missing (mode 0600); a fresh one in memory where there is no `dataDir`. */
export const load = Effect.fn("Identity.load")(function*(dataDir: Option.Option<string>) {
  if (Option.isNone(dataDir)) return toLibp2p(generate())
  const path = join(dataDir.value, "private.key")
  const unusable = (cause: unknown) =>
    new IdentityUnusable({
      path,
      reason: `${cause instanceof Error ? cause.message : String(cause)}; check --data-dir and its permissions`
    })
  const kept = yield* Effect.tryPromise({ try: () => read(path), catch: unusable })
  if (Option.isSome(kept)) return toLibp2p(yield* parse(path, kept.value))
  const key = generate()
  yield* Effect.tryPromise({
    try: async () => {
      await mkdir(dataDir.value, { recursive: true, mode: 0o700 })
      // A crash must not leave half a key behind.
      const temporary = `${path}.${process.pid}`
      await writeFile(temporary, key.export({ format: "pem", type: "pkcs8" }), { mode: 0o600 })
      await rename(temporary, path)
    },
    catch: unusable
  })
  return toLibp2p(key)
})
