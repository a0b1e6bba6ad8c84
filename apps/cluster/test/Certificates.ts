/** The cluster's certificate authority, and the certificates and kubeconfig files that it issues. */
import * as Command from "@spegel-ts/testing/process/Command"
import { Effect } from "effect"
import { writeFile } from "node:fs/promises"
import { join } from "node:path"

const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]

/** Makes an authority in a directory, which has to exist. */
export const make = Effect.fnUntraced(function*(directory: string, apiServer: string) {
  const path = (name: string) => join(directory, name)
  yield* Command.run("openssl", [
    "req",
    "-x509",
    ...key,
    "-subj",
    "/CN=cluster",
    "-keyout",
    path("ca.key"),
    "-out",
    path("ca.crt")
  ])

  /** Issues a certificate for a client, and for a server with these names (`DNS:a,IP:b`). */
  const certificate = Effect.fnUntraced(function*(name: string, subject: string, names = "") {
    const extensions = path(`${name}.ext`)
    yield* Effect.promise(() =>
      writeFile(
        extensions,
        `extendedKeyUsage=clientAuth,serverAuth\n${names === "" ? "" : `subjectAltName=${names}\n`}`
      )
    )
    yield* Command.run("openssl", [
      "req",
      ...key,
      "-subj",
      subject,
      "-keyout",
      path(`${name}.key`),
      "-out",
      path(`${name}.csr`)
    ])
    yield* Command.run("openssl", [
      "x509",
      "-req",
      "-in",
      path(`${name}.csr`),
      "-CA",
      path("ca.crt"),
      "-CAkey",
      path("ca.key"),
      "-CAcreateserial",
      "-days",
      "2",
      "-extfile",
      extensions,
      "-out",
      path(`${name}.crt`)
    ])
  })

  /** Makes a kubeconfig file for a subject; gives its path. */
  const kubeconfig = Effect.fnUntraced(function*(name: string, subject: string) {
    yield* certificate(name, subject)
    const file = path(`${name}.kubeconfig`)
    const config = {
      apiVersion: "v1",
      kind: "Config",
      clusters: [{ name: "cluster", cluster: { server: apiServer, "certificate-authority": path("ca.crt") } }],
      users: [{ name, user: { "client-certificate": path(`${name}.crt`), "client-key": path(`${name}.key`) } }],
      contexts: [{ name: "cluster", context: { cluster: "cluster", user: name } }],
      "current-context": "cluster"
    }
    yield* Effect.promise(() => writeFile(file, JSON.stringify(config)))
    return file
  })

  /** Makes the keys that sign and verify tokens of service accounts. */
  const serviceAccounts = Effect.gen(function*() {
    const secret = path("service-accounts.key")
    yield* Command.run("openssl", ["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", secret])
    yield* Command.run("openssl", ["ec", "-in", secret, "-pubout", "-out", path("service-accounts.pub")])
  })

  return { certificate, kubeconfig, serviceAccounts }
})
