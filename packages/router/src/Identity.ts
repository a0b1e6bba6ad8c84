/**
 * The key pair that a node is known by. It is kept in a directory as `private.key`, in PKCS#8 PEM (Ed25519), which is Go
 * Spegel's file, so that a node keeps its peer id across restarts and migrations. Two files lie beside it:
 *
 * - `private.key.owner` says which node the key was made for. A machine that was cloned with its directory makes its own.
 * - `private.key.lock` is held by the process that uses the key. A second process on the same machine uses a key in memory.
 *
 * A kept identity is a convenience. Whatever is wrong with the directory, the node starts, with a key in memory.
 */
import { privateKeyFromRaw } from "@libp2p/crypto/keys"
import type { PrivateKey } from "@libp2p/interface"
import { Context, Effect, Layer, Option, Schema } from "effect"
import { createHmac, createPrivateKey, generateKeyPairSync, type KeyObject } from "node:crypto"
import { access } from "node:fs/promises"
import { join } from "node:path"
import { makeDirectory, readSmall, writeDurably } from "./internal/identity/DurableFile.ts"
import * as IdentityLock from "./internal/identity/IdentityLock.ts"

/** The marks that distinguish one node from another. Unknown parts are left out. */
export interface Owner {
  /** The node's name in its cluster. It decides if it is known on both sides. */
  readonly node?: string
  /** A hash of the machine's id. */
  readonly machine?: string
}

const Owner = Schema.fromJsonString(Schema.Struct({
  node: Schema.optionalKey(Schema.String),
  machine: Schema.optionalKey(Schema.String)
}))

/** Name of the file with the private key: PKCS#8 PEM, mode 0600. */
export const keyFile = "private.key"
/** Name of the file with the key's `Owner`, as JSON. */
export const ownerFile = "private.key.owner"
/** Name of the socket that the key's user listens on. */
export const lockFile = "private.key.lock"
const maxFileSize = 16 * 1024
/** A directory on a lost network file system may never answer. */
const patience = "5 seconds"

/** The node's key pair, the same for all parts of one process. */
export class Identity extends Context.Service<Identity, {
  readonly privateKey: PrivateKey
  /** The libp2p peer id in its usual text form. */
  readonly id: string
}>()("@spegel-ts/router/Identity") {
  /**
   * The identity kept in `dataDir`, made there if it is missing. Never fails: if the directory cannot be used, a warning says
   * why, and the identity is a new one in memory.
   */
  static readonly layer = (options: { readonly dataDir: string; readonly owner: Owner }): Layer.Layer<Identity> =>
    Layer.effect(this, Effect.map(load(options), ofKey))

  /** A new identity in memory. */
  static readonly layerMemory: Layer.Layer<Identity> = Layer.sync(this, () => ofKey(generate()))
}

const generate = (): KeyObject => generateKeyPairSync("ed25519").privateKey

const ofKey = (key: KeyObject): typeof Identity.Service => {
  const { d = "", x = "" } = key.export({ format: "jwk" })
  const privateKey = privateKeyFromRaw(Buffer.concat([Buffer.from(d, "base64url"), Buffer.from(x, "base64url")]))
  return Identity.of({ privateKey, id: privateKey.publicKey.toString() })
}

/**
 * This node as an owner: its name if it has one, and a hash of its machine's id, since systemd asks that the id itself is kept
 * confidential. Never rejects.
 */
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

/**
 * Whether a key that was made for `kept` belongs to another node than `own`. Names decide if both are known, since a node may
 * be reinstalled with a new machine id; machines decide otherwise.
 */
export const isForeign = (kept: Owner, own: Owner): boolean =>
  kept.node !== undefined && own.node !== undefined
    ? kept.node !== own.node
    : kept.machine !== undefined && own.machine !== undefined && kept.machine !== own.machine

const parseKey = (pem: Buffer): KeyObject => {
  const key = (() => {
    try {
      return createPrivateKey(pem)
    } catch {
      throw new Error(pem.length === 0 ? "is empty" : "is not a PEM private key")
    }
  })()
  if (key.asymmetricKeyType !== "ed25519") throw new Error(`is a key of type ${key.asymmetricKeyType} and not ed25519`)
  return key
}

const reasonOf = (cause: unknown): string => cause instanceof Error ? cause.message : String(cause)

/** Reads the kept key; none if there is none yet. Fails with the reason if it cannot be used. */
const readKept = (dataDir: string) =>
  Effect.tryPromise({
    try: async () => {
      const pem = await readSmall(join(dataDir, keyFile), maxFileSize)
      if (pem === undefined) return Option.none()
      // A key without an owner was made by an earlier version, or by Go Spegel.
      const owner = await readSmall(join(dataDir, ownerFile), maxFileSize).catch(() => undefined)
      return Option.some({ key: parseKey(pem), owner: owner?.toString("utf8") ?? "" })
    },
    catch: reasonOf
  })

const writeOwner = (dataDir: string, owner: Owner) =>
  Effect.tryPromise(() => writeDurably(join(dataDir, ownerFile), JSON.stringify(owner), 0o640)).pipe(
    // The key works without it.
    Effect.catch((error) => Effect.logDebug(`cannot note whose identity this is: ${reasonOf(error.cause)}`))
  )

/** Makes and keeps a key. It is written before its owner, so that a crash in between leaves a key without an owner. */
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

/** Whether a node ran with this directory before: it has an identity, whoever owns it. True if the directory does not answer. */
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
      "the identity is in use by the process that this one replaces: this one uses a new identity in memory"
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
          `the identity ${path} cannot be used (${reason}): this node uses a new one in memory, and its peers ` +
            "do not recognise it after a restart; restore or remove the file, and see that its directory can be written to"
        ),
        generate()
      )
    )
  )
})
