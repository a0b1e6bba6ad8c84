/**
 * The key pair that a node is known by. Kept in `<data-dir>/private.key` as PKCS#8 PEM (Ed25519), the file that Go
 * Spegel keeps, so that a node keeps its peer id across restarts and migrations. `private.key.owner` beside it says which
 * node it was made for: a machine cloned with its data directory makes a key of its own. `private.key.lock` says that a
 * process uses the key: another one on the same machine has a key in memory meanwhile.
 *
 * An identity is a convenience. Whatever is wrong with the directory, the node starts, with a key in memory.
 */
import { privateKeyFromRaw } from "@libp2p/crypto/keys"
import type { PrivateKey } from "@libp2p/interface"
import { Context, Effect, Layer, Option, Schema } from "effect"
import { createHmac, createPrivateKey, generateKeyPairSync, type KeyObject } from "node:crypto"
import { access } from "node:fs/promises"
import { join } from "node:path"
import { makeDirectory, readSmall, writeDurably } from "./internal/host/DurableFile.ts"
import * as IdentityLock from "./internal/host/IdentityLock.ts"

/** What tells one node from another; what is not known is left out. */
export interface Owner {
  /** The node's name in its cluster. It decides, where it is known on both sides. */
  readonly node?: string
  /** A hash of the machine's id. */
  readonly machine?: string
}

const Owner = Schema.fromJsonString(Schema.Struct({
  node: Schema.optionalKey(Schema.String),
  machine: Schema.optionalKey(Schema.String)
}))

export const keyFile = "private.key"
export const ownerFile = "private.key.owner"
export const lockFile = "private.key.lock"
const maxFileSize = 16 * 1024
/** A directory on a network that is gone may never answer. */
const patience = "5 seconds"

/** The node's key pair, the same for all parts of one process. */
export class Identity extends Context.Service<Identity, {
  readonly privateKey: PrivateKey
  /** The libp2p peer id in its usual text form. */
  readonly id: string
}>()("@spegel-ts/router/Identity") {
  /** The identity kept in `dataDir`, made there where it is missing; in memory where that is not possible. Never fails. */
  static readonly layer = (options: { readonly dataDir: string; readonly owner: Owner }): Layer.Layer<Identity> =>
    Layer.effect(this, Effect.map(load(options), ofKey))

  /** A new identity that is kept nowhere. */
  static readonly layerMemory: Layer.Layer<Identity> = Layer.sync(this, () => ofKey(generate()))
}

const generate = (): KeyObject => generateKeyPairSync("ed25519").privateKey

const ofKey = (key: KeyObject): typeof Identity.Service => {
  const { d = "", x = "" } = key.export({ format: "jwk" })
  const privateKey = privateKeyFromRaw(Buffer.concat([Buffer.from(d, "base64url"), Buffer.from(x, "base64url")]))
  return Identity.of({ privateKey, id: privateKey.publicKey.toString() })
}

/** This node as an owner: its name where it has one, and its machine. systemd asks that the machine's id itself is not told. */
export const ownerOf = async (options: {
  readonly nodeName: string
  readonly machineIdFile?: string
}): Promise<Owner> => {
  const text = await readSmall(options.machineIdFile ?? "/etc/machine-id", 256).catch(() => undefined)
  const machineId = text?.toString("utf8").trim() ?? ""
  return {
    ...(options.nodeName === "" ? {} : { node: options.nodeName }),
    // `uninitialized` is what systemd writes into images.
    ...(/^[0-9a-f]{32}$/.test(machineId)
      ? { machine: createHmac("sha256", machineId).update("spegel identity").digest("hex").slice(0, 32) }
      : {})
  }
}

/** Whether a key that was made for `kept` is another node's. A name is decisive: a machine may be installed anew under it. */
export const isForeign = (kept: Owner, own: Owner): boolean =>
  kept.node !== undefined && own.node !== undefined
    ? kept.node !== own.node
    : kept.machine !== undefined && own.machine !== undefined && kept.machine !== own.machine

const parseKey = (pem: Buffer): KeyObject => {
  const key = (() => {
    try {
      return createPrivateKey(pem)
    } catch {
      throw new Error(pem.length === 0 ? "is empty" : "is no PEM private key")
    }
  })()
  if (key.asymmetricKeyType !== "ed25519") throw new Error(`is a key of type ${key.asymmetricKeyType} and not ed25519`)
  return key
}

const reasonOf = (cause: unknown): string => cause instanceof Error ? cause.message : String(cause)

/** Reads what is kept; none of it where there is no key yet. Fails with the reason where there is one that is no use. */
const readKept = (dataDir: string) =>
  Effect.tryPromise({
    try: async () => {
      const pem = await readSmall(join(dataDir, keyFile), maxFileSize)
      if (pem === undefined) return Option.none()
      // Who has no owner yet was made by an earlier version, or by Go Spegel.
      const owner = await readSmall(join(dataDir, ownerFile), maxFileSize).catch(() => undefined)
      return Option.some({ key: parseKey(pem), owner: owner?.toString("utf8") ?? "" })
    },
    catch: reasonOf
  })

const writeOwner = (dataDir: string, owner: Owner) =>
  Effect.tryPromise(() => writeDurably(join(dataDir, ownerFile), JSON.stringify(owner), 0o640)).pipe(
    // The key is the same without it.
    Effect.catch((error) => Effect.logDebug(`cannot note whose identity this is: ${reasonOf(error.cause)}`))
  )

/** Makes a key and keeps it. The key goes first: what a crash leaves is taken for a key without owner, or another's again. */
const makeKept = (dataDir: string, owner: Owner) =>
  Effect.gen(function*() {
    const key = generate()
    yield* Effect.tryPromise({
      try: async () => {
        await makeDirectory(dataDir, 0o700)
        await writeDurably(join(dataDir, keyFile), key.export({ format: "pem", type: "pkcs8" }).toString(), 0o600)
      },
      catch: reasonOf
    })
    yield* writeOwner(dataDir, owner)
    return key
  })

/** Whether the directory has an identity already, of whatever node: a mirror ran with it before. True where it does not answer. */
export const isKept = (dataDir: string): Effect.Effect<boolean> =>
  Effect.promise(() => access(join(dataDir, keyFile)).then(() => true, () => false)).pipe(
    Effect.timeoutOrElse({ duration: patience, orElse: () => Effect.succeed(true) })
  )

const load = Effect.fn("Identity.load")(function*({ dataDir, owner }: {
  readonly dataDir: string
  readonly owner: Owner
}) {
  const path = join(dataDir, keyFile)
  const readOrMake = Effect.gen(function*() {
    const found = yield* readKept(dataDir)
    if (Option.isNone(found)) return yield* makeKept(dataDir, owner)
    const { key } = found.value
    const madeFor: Owner = Option.getOrElse(Schema.decodeOption(Owner)(found.value.owner), () => ({}))
    if (isForeign(madeFor, owner)) {
      const own = yield* makeKept(dataDir, owner)
      yield* Effect.logWarning(
        "the identity in the data directory was another node's, as after cloning a machine: this node has made its own"
      ).pipe(Effect.annotateLogs({ path, ...(madeFor.node === undefined ? {} : { madeFor: madeFor.node }) }))
      return own
    }
    const known: Owner = { ...madeFor, ...owner }
    if (known.node !== madeFor.node || known.machine !== madeFor.machine) yield* writeOwner(dataDir, known)
    return key
  })
  const kept = Effect.gen(function*() {
    const key = yield* readOrMake
    if (yield* IdentityLock.acquire(join(dataDir, lockFile))) return key
    yield* Effect.logInfo(
      "the identity is in use by the mirror that this one replaces: this one has a new one in memory"
    ).pipe(
      Effect.annotateLogs({ path })
    )
    return generate()
  })
  return yield* kept.pipe(
    Effect.timeoutOrElse({ duration: patience, orElse: () => Effect.fail("does not answer") }),
    Effect.catch((reason) =>
      Effect.as(
        Effect.logWarning(
          `the identity ${path} cannot be used (${reason}): this node has a new one in memory, and is a stranger to its ` +
            "peers after each restart; restore or remove the file, and see that --data-dir is a directory it can write to"
        ),
        generate()
      )
    )
  )
})
