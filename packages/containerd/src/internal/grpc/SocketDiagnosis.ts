/** Explains to the person who runs the node why a unix socket does not work. */
import { Effect } from "effect"
import { createConnection } from "node:net"

/** The advice for an errno of connect(2); `undefined` means that something accepted the connection. */
const advice = (socket: string, setting: string, errno: string | undefined): string => {
  switch (errno) {
    case undefined:
      return `something listens on ${socket} but does not answer as containerd does: check that the path is containerd's gRPC socket, and that containerd is not overloaded`
    case "ENOENT":
      return `${socket} does not exist: check ${setting}, that containerd runs, and that the socket's directory is mounted into the container`
    case "EACCES":
    case "EPERM":
      return `permission denied on ${socket}: containerd's socket belongs to root with mode 0660; run as root or with the socket's group`
    case "ECONNREFUSED":
      return `nothing listens on ${socket}: containerd is stopped or restarting, or the path is not a socket`
    case "ENOTSOCK":
    case "EPROTOTYPE":
      return `${socket} is not a stream socket: check ${setting}`
    case "ENAMETOOLONG":
    case "EINVAL":
      return `${socket} is too long for a socket path (107 bytes): use a shorter one`
    default:
      return `${socket} cannot be connected to (${errno})`
  }
}

/**
 * Connects once to learn the kernel's reason: gRPC reports only that it is unavailable. `setting` is how users know the
 * setting of the socket's path.
 */
export const diagnose = (socket: string, setting: string): Effect.Effect<string> =>
  Effect.callback<string | undefined>((resume) => {
    const connection = createConnection(socket)
    connection.once("connect", () => resume(Effect.succeed(undefined)))
    connection.on("error", (error: NodeJS.ErrnoException) => resume(Effect.succeed(error.code ?? error.message)))
    return Effect.sync(() => connection.destroy())
  }).pipe(
    Effect.timeoutOrElse({ duration: "1 second", orElse: () => Effect.succeed("no answer") }),
    Effect.map((errno) => advice(socket, setting, errno))
  )
