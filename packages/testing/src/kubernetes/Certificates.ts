/** A certificate authority for tests, and certificates that it signs, as PEM files made by openssl. */
import type { Environment } from "@spegel-ts/kubernetes/ClusterAccess"
import { Effect } from "effect"
import { writeFile } from "node:fs/promises"
import { join } from "node:path"
import { run } from "../process/Command.ts"
import { inPath, lacking } from "./Prerequisite.ts"

/** The prerequisite that this machine lacks; undefined if it has all of them. Throws in CI. */
export const missingPrerequisite = (environment: Environment): string | undefined =>
  lacking(environment, inPath("openssl", environment) ? undefined : "needs openssl")

const newKey = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
const openssl = (...args: ReadonlyArray<string>) => run("openssl", args)

const loopback = ["127.0.0.1", "127.0.0.2", "127.0.0.3"].map((address) => `IP:${address}`).join(",")

/** Makes an authority whose files are in `directory`, which must exist. */
export const authority = Effect.fnUntraced(function*(directory: string) {
  const path = (name: string) => join(directory, name)
  const [ca, caKey] = [path("ca.crt"), path("ca.key")]
  const usage = ["-addext", "keyUsage=critical,keyCertSign,cRLSign"]
  yield* openssl("req", "-x509", ...newKey, "-subj", "/CN=test authority", "-keyout", caKey, "-out", ca, ...usage)
  return {
    ca,
    /**
     * Issues a certificate for a client, and for a server with these names (`DNS:a,IP:b`); an empty text means none. `name` is
     * that of its files.
     */
    certificate: Effect.fnUntraced(function*(name: string, { names = loopback, subject = `/CN=${name}` } = {}) {
      const [cert, key, request] = [path(`${name}.crt`), path(`${name}.key`), path(`${name}.csr`)]
      const extensions = path(`${name}.ext`)
      const text = `extendedKeyUsage=clientAuth,serverAuth\n${names === "" ? "" : `subjectAltName=${names}\n`}`
      yield* Effect.promise(() => writeFile(extensions, text))
      yield* openssl("req", ...newKey, "-subj", subject, "-keyout", key, "-out", request)
      const signed = ["-CA", ca, "-CAkey", caKey, "-CAcreateserial", "-days", "2", "-extfile", extensions]
      yield* openssl("x509", "-req", "-in", request, ...signed, "-out", cert)
      return { cert, key }
    })
  }
})
