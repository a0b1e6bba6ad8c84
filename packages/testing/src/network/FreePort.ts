import { Effect } from "effect"
import { randomInt } from "node:crypto"
import { createServer } from "node:net"

/**
 * A port that is free on all addresses at this moment. It lies below the ports that the kernel hands out by itself
 * (`net.ipv4.ip_local_port_range`), so that no connection and no `listen(0)` of another test takes it before it is used.
 */
export const freePort = Effect.callback<number>((resume) => {
  const attempt = () => {
    const port = randomInt(10_000, 32_768)
    const server = createServer().once("error", attempt)
    server.listen(port, () => server.close(() => resume(Effect.succeed(port))))
  }
  attempt()
})
