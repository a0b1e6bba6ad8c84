/**
 * Certificates that containerd finds by their names, as Docker does, if their directory has no hosts.toml: `*.crt` is a
 * CA, `*.cert` a client certificate with its key in `*.key` or in the same file.
 */
import { X509Certificate } from "node:crypto"
import { readFile } from "node:fs/promises"
import { join } from "node:path"
import { createSecureContext } from "node:tls"
import type { TomlTable } from "smol-toml"
import * as AtomicFile from "./AtomicFile.ts"

export interface Certificates {
  /** The options `ca` and `client` that name them. */
  readonly all: TomlTable
  /** The same without certificates that cannot be loaded, which would make every pull fail. */
  readonly loadable: TomlTable
}

const optionsOf = (ca: ReadonlyArray<string>, client: ReadonlyArray<ReadonlyArray<string>>): TomlTable => ({
  ...ca.length === 0 ? {} : { ca: [...ca] },
  ...client.length === 0 ? {} : { client: client.map((pair) => [...pair]) }
})

const isLoadable = async (directory: string, names: ReadonlyArray<string>, load: (pem: Array<Buffer>) => unknown) => {
  try {
    load(await Promise.all(names.map((name) => readFile(join(directory, name)))))
    return true
  } catch {
    return false
  }
}

export const find = async (directory: string): Promise<Certificates> => {
  const names = await AtomicFile.list(directory)
  const files: Array<string> = []
  for (const name of names) {
    if (/\.(?:crt|cert|key)$/.test(name) && !await AtomicFile.isDirectory(join(directory, name))) files.push(name)
  }
  const ca = files.filter((name) => name.endsWith(".crt"))
  const client = files.filter((name) => name.endsWith(".cert")).map((certificate) => {
    const key = certificate.replace(/cert$/, "key")
    return [certificate, files.includes(key) ? key : certificate]
  })
  const [loadableCa, loadableClient] = [[] as Array<string>, [] as Array<ReadonlyArray<string>>]
  for (const name of ca) {
    if (await isLoadable(directory, [name], ([pem = ""]) => new X509Certificate(pem))) loadableCa.push(name)
  }
  for (const pair of client) {
    if (await isLoadable(directory, pair, ([cert, key]) => createSecureContext({ cert, key }))) {
      loadableClient.push(pair)
    }
  }
  return { all: optionsOf(ca, client), loadable: optionsOf(loadableCa, loadableClient) }
}
