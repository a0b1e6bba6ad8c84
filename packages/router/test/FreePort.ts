import { Effect } from "effect"
import { type AddressInfo, createServer } from "node:net"

/** A port that is free on all of 127.0.0.0/8 at this moment. */
export const freePort = Effect.callback<number>((resume) => {
  const server = createServer().listen(0, () => {
    const { port } = server.address() as AddressInfo
    server.close(() => resume(Effect.succeed(port)))
  })
})
