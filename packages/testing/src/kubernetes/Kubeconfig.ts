/** kubeconfig files that name one API server. */
import { Effect } from "effect"
import { writeFile } from "node:fs/promises"
import type { Server } from "node:http"
import { join } from "node:path"
import * as LocalServer from "../network/LocalServer.ts"
import { temporary } from "../TemporaryDirectory.ts"

/** The text of a kubeconfig. `ca` is a file with the authority's certificate. */
export const print = (options: { readonly server: string; readonly ca?: string; readonly token?: string }): string =>
  JSON.stringify({
    apiVersion: "v1",
    kind: "Config",
    "current-context": "test",
    contexts: [{ name: "test", context: { cluster: "test", user: "test" } }],
    clusters: [{
      name: "test",
      cluster: {
        server: options.server,
        ...(options.ca === undefined ? {} : { "certificate-authority": options.ca })
      }
    }],
    users: [{ name: "test", user: options.token === undefined ? {} : { token: options.token } }]
  })

/** Has a server that stands for an API server listen while the scope is open; gives the path of a kubeconfig for it. */
export const serve = Effect.fnUntraced(function*(server: Server) {
  const path = join(yield* temporary, "kubeconfig")
  const url = `http://127.0.0.1:${yield* LocalServer.listen(server)}`
  yield* Effect.promise(() => writeFile(path, print({ server: url })))
  return path
})
