import { Effect } from "effect"
import type { Server } from "node:http"
import type { AddressInfo } from "node:net"

/**
 * Has an HTTP server listen on a port that the kernel chooses, or on `port`, and gives that port. When the scope closes
 * the server takes no more connections and ends those that it has.
 */
export const listen = (server: Server, address = "127.0.0.1", port = 0) =>
  Effect.acquireRelease(
    Effect.callback<number>((resume) => {
      server.listen(port, address, () => resume(Effect.succeed((server.address() as AddressInfo).port)))
    }),
    () =>
      Effect.sync(() => {
        server.close()
        server.closeAllConnections()
      })
  )
