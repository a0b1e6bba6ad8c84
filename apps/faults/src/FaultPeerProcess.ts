/** A fault peer as a process in a network namespace of its own, so that it can be taken off the network like a machine. */
import * as NetworkNamespace from "@spegel-ts/testing/network/NetworkNamespace"
import * as Subprocess from "@spegel-ts/testing/process/Subprocess"
import { Data, Effect } from "effect"
import { fileURLToPath } from "node:url"
import type { FaultPeerOptions } from "./FaultPeer.ts"
import type { Counts } from "./FaultServer.ts"

/** The processes that a peer's misbehaviour may affect. */
export interface Others {
  /** The other peer that has the image. */
  readonly peer: number
  /** The mirror under test, and the file that says by how much its clock is off (`SettableClock`). */
  readonly mirror: number
  readonly clockFile: string
}

/** Messages to the process of a peer; each is answered by a `Reply` with its id. */
export type Command =
  | { readonly _tag: "Start"; readonly options: Omit<FaultPeerOptions, "happenings">; readonly others: Others }
  | { readonly _tag: "AwaitProviders"; readonly providers: number }
  | { readonly _tag: "Counts" }
  | { readonly _tag: "Stop" }

/** The answer to a command: its result, or why it failed. */
export type Reply =
  | { readonly id: number; readonly result: unknown }
  | { readonly id: number; readonly failure: string }

/** The process failed to do what it was told, or has ended. */
export class FaultPeerFailed extends Data.TaggedError("FaultPeerFailed")<{
  readonly command: string
  readonly reason: string
}> {
  override get message() {
    return `fault peer, ${this.command}: ${this.reason}`
  }
}

const main = fileURLToPath(new URL("./FaultPeerMain.ts", import.meta.url))

/** Starts the process behind a port of the isolated network's bridge; it ends with the scope. */
export const start = Effect.fnUntraced(function*(options: {
  /** Name of the bridge's port; at most 14 characters. */
  readonly link: string
  readonly address: string
}) {
  const { address, link } = options
  const inside = `${link}p`
  const program = [process.execPath, "--conditions=@spegel-ts/source", main, inside]
  const child = yield* Subprocess.start("unshare", ["--net", ...program], {
    stdio: ["ignore", "ignore", "pipe", "ipc"]
  })
  let errors = ""
  child.stderr?.on("data", (bytes: Buffer) => errors = (errors + bytes.toString()).slice(-4000))
  const waiting = new Map<number, (reply: Reply) => void>()
  let next = 0
  child.on("message", (reply: Reply) => {
    waiting.get(reply.id)?.(reply)
    waiting.delete(reply.id)
  })
  child.once("exit", (code) => {
    for (const [id, answer] of waiting) answer({ id, failure: `ended with code ${code}: ${errors}` })
    waiting.clear()
  })
  const tell = (command: Command): Effect.Effect<unknown, FaultPeerFailed> =>
    Effect.callback((resume) => {
      const id = next++
      waiting.set(id, (reply) =>
        resume(
          "failure" in reply
            ? Effect.fail(new FaultPeerFailed({ command: command._tag, reason: reply.failure }))
            : Effect.succeed(reply.result)
        ))
      child.send({ id, command })
    })

  // Once it has answered, it is in its namespace.
  yield* tell({ _tag: "Counts" })
  const namespace = child.pid ?? 0
  yield* NetworkNamespace.link({ name: link, bridge: NetworkNamespace.bridge, namespace, inside })
  yield* NetworkNamespace.up("lo", namespace)
  yield* NetworkNamespace.addAddress(address, inside, namespace)
  yield* NetworkNamespace.up(inside, namespace)

  return {
    start: (options: Omit<FaultPeerOptions, "happenings">, others: Others) => tell({ _tag: "Start", options, others }),
    /** Waits until the peer finds so many other holders of everything that it has. */
    awaitProviders: (providers: number) => tell({ _tag: "AwaitProviders", providers }),
    counts: Effect.map(tell({ _tag: "Counts" }), (counts) => counts as Counts),
    /** Leaves the network; gives the counts. */
    stop: Effect.map(tell({ _tag: "Stop" }), (counts) => counts as Counts)
  }
})

export type FaultPeerProcess = Effect.Success<ReturnType<typeof start>>
