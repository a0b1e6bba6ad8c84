/** A certificate authority for tests, and certificates that it signs, as PEM files made by openssl. */
import type { Environment } from "@spegel-ts/kubernetes/ClusterAccess"
import { Effect } from "effect"
import { execFile } from "node:child_process"
import { writeFile } from "node:fs/promises"
import { join } from "node:path"
import { promisify } from "node:util"
import { inPath, lacking } from "./Prerequisite.ts"

/** What this machine lacks for it; undefined where it lacks nothing. Throws in CI. */
export const missingPrerequisite = (environment: Environment): string | undefined =>
  lacking(environment, inPath("openssl", environment) ? undefined : "needs openssl")

const run = promisify(execFile)
const newKey = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]

/** Makes an authority whose files are in `directory`, which must exist. */
export const authority = (directory: string) =>
  Effect.promise(async () => {
    const path = (name: string) => join(directory, name)
    const ca = path("ca.crt")
    await run("openssl", [
      "req",
      "-x509",
      ...newKey,
      "-subj",
      "/CN=test authority",
      "-keyout",
      path("ca.key"),
      "-out",
      ca,
      "-addext",
      "keyUsage=critical,keyCertSign,cRLSign"
    ])
    return {
      ca,
      /** A certificate of that name, for clients, and for servers at 127.0.0.1 to 127.0.0.3. */
      certificate: (name: string) =>
        Effect.promise(async () => {
          const [cert, key, request] = [path(`${name}.crt`), path(`${name}.key`), path(`${name}.csr`)]
          const extensions = path(`${name}.ext`)
          await writeFile(
            extensions,
            "extendedKeyUsage=clientAuth,serverAuth\nsubjectAltName=IP:127.0.0.1,IP:127.0.0.2,IP:127.0.0.3\n"
          )
          await run("openssl", ["req", ...newKey, "-subj", `/CN=${name}`, "-keyout", key, "-out", request])
          await run("openssl", [
            "x509",
            "-req",
            "-in",
            request,
            "-CA",
            ca,
            "-CAkey",
            path("ca.key"),
            "-CAcreateserial",
            "-days",
            "2",
            "-extfile",
            extensions,
            "-out",
            cert
          ])
          return { cert, key }
        })
    }
  })
