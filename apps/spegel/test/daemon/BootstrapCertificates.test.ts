import { assert, describe, it } from "@effect/vitest"
import * as Bootstrap from "@spegel-ts/router/Bootstrap"
import * as BootstrapCertificates from "@spegel-ts/spegel/daemon/BootstrapCertificates"
import * as Certificates from "@spegel-ts/testing/kubernetes/Certificates"
import * as LocalServer from "@spegel-ts/testing/network/LocalServer"
import { temporary } from "@spegel-ts/testing/TemporaryDirectory"
import { Effect } from "effect"
import { readFile } from "node:fs/promises"
import { createServer as createSecureServer } from "node:https"
import { join } from "node:path"

describe("BootstrapCertificates", () => {
  const noTls = Certificates.missingPrerequisite(process.env)
  const note = noTls === undefined ? "" : ` (skipped: ${noTls})`
  it.live.skipIf(noTls !== undefined)(
    `asks over TLS, and shows its certificate where one is wanted${note}`,
    () =>
      Effect.gen(function*() {
        const directory = yield* temporary
        const { ca, certificate } = yield* Certificates.authority(directory)
        const own = yield* certificate("node")
        const [authority, cert, key] = yield* Effect.promise(() =>
          Promise.all([ca, own.cert, own.key].map((path) => readFile(path)))
        )
        const server = createSecureServer(
          { cert, key, ca: authority, requestCert: true },
          (_request, response) => response.end(`[{"ID":"","Addrs":["/ip4/10.0.0.7/tcp/5001"]}]`)
        )
        const port = yield* LocalServer.listen(server)
        const url = new URL(`https://127.0.0.1:${port}/id`)
        const ask = (tls: BootstrapCertificates.TlsFiles) =>
          Bootstrap.fromHttp({ url, client: BootstrapCertificates.httpClient(tls) }).addresses
        assert.deepStrictEqual(yield* ask({ ca, ...own }), ["/ip4/10.0.0.7/tcp/5001"])
        assert.include((yield* Effect.flip(ask({ ca }))).message, "cannot be reached")
        assert.include((yield* Effect.flip(ask(own))).message, "certificate")
        assert.include((yield* Effect.flip(ask({ ca: join(directory, "gone") }))).message, "cannot be read")
      })
  )
})
