/** What the cluster's certificate authority issues: certificates, kubeconfig files, and keys for service accounts. */
import * as Authority from "@spegel-ts/testing/kubernetes/Certificates"
import * as Command from "@spegel-ts/testing/process/Command"
import { Effect } from "effect"
import { writeFile } from "node:fs/promises"
import { join } from "node:path"

/** Makes an authority in a directory, which has to exist. */
export const make = Effect.fnUntraced(function*(directory: string, apiServer: string) {
  const path = (name: string) => join(directory, name)
  const { ca, certificate } = yield* Authority.authority(directory)

  /** Makes a kubeconfig file for a subject; gives its path. */
  const kubeconfig = Effect.fnUntraced(function*(name: string, subject: string) {
    const { cert, key } = yield* certificate(name, { subject, names: "" })
    const file = path(`${name}.kubeconfig`)
    const config = {
      apiVersion: "v1",
      kind: "Config",
      clusters: [{ name: "cluster", cluster: { server: apiServer, "certificate-authority": ca } }],
      users: [{ name, user: { "client-certificate": cert, "client-key": key } }],
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
