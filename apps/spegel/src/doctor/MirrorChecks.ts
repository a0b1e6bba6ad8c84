/** Checks of the mirror that runs on this node: its ports, whether it is ready, and its cluster key. */
import type { KeyRing } from "@spegel-ts/cluster-key/KeyRing"
import { Effect, Option } from "effect"
import { createConnection } from "node:net"
import type { ListenAddress } from "../cli/ListenAddress.ts"
import { localHost, print } from "../cli/ListenAddress.ts"
import type { PeerAuthChoice } from "../settings/TrustSettings.ts"
import { type Check, ok, problem, skipped, warning } from "./Check.ts"
import type { Answerer } from "./MirrorProbe.ts"
import * as MirrorProbe from "./MirrorProbe.ts"

const start = "start the mirror (spegel registry), or give this command the flags that it has"

/** Whether the mirror answers at the registry's address. */
export const registryPort = (answerer: Answerer, address: ListenAddress): Check => {
  const at = print(address)
  switch (answerer._tag) {
    case "Mirror":
      return ok("registry-port", `the mirror answers at ${at}`)
    case "Other":
      return problem(
        "registry-port",
        `${at} is ${answerer.description}`,
        "stop it, or give the mirror another --registry-addr"
      )
    case "Nobody":
      return problem("registry-port", `nothing answers at ${at}: ${answerer.reason}`, start)
  }
}

/** The first message of libp2p, from both sides: its length, and the protocol that they choose others with. */
const greeting = Buffer.from("\x13/multistream/1.0.0\n")
const greetingTimeout = "3 seconds"

/** Why a router does not answer; undefined if it does. */
const greet = (address: ListenAddress): Effect.Effect<string | undefined> =>
  Effect.callback<string | undefined>((resume) => {
    const socket = createConnection({ host: localHost(address), port: address.port })
    let received = Buffer.alloc(0)
    socket.on("connect", () => socket.write(greeting))
    socket.on("data", (bytes) => {
      received = Buffer.concat([received, bytes])
      if (received.length < greeting.length) return
      const isGreeting = received.subarray(0, greeting.length).equals(greeting)
      resume(Effect.succeed(isGreeting ? undefined : "something that is not a router answers"))
    })
    socket.on("error", ({ message }) => resume(Effect.succeed(message)))
    socket.on("close", () => resume(Effect.succeed("the connection was closed")))
    return Effect.sync(() => socket.destroy())
  }).pipe(
    Effect.timeoutOrElse({
      duration: greetingTimeout,
      orElse: () => Effect.succeed(`no answer within ${greetingTimeout}`)
    })
  )

/** Whether the router answers at its address. */
export const routerPort = (address: ListenAddress): Effect.Effect<Check> =>
  Effect.map(greet(address), (fault) =>
    fault === undefined
      ? ok("router-port", `the router answers at ${print(address)}`)
      : problem("router-port", `no router at ${print(address)}: ${fault}`, start))

const messageOf = (body: string): string => {
  const found = /"message":"((?:[^"\\]|\\.)*)"/.exec(body)?.[1]
  return found === undefined ? body.slice(0, 200) : found
}

/** Whether the mirror says that it is ready. */
export const ready = (registryUrl: string): Effect.Effect<Check> =>
  MirrorProbe.get(`${registryUrl}/readyz`).pipe(
    Effect.map(({ body, status }) =>
      status === 200
        ? ok("ready", "the mirror is ready")
        : problem(
          "ready",
          `the mirror is not ready: ${messageOf(body)}`,
          "see whether its bootstrap sources name peers that it can reach"
        )
    ),
    Effect.catch(({ reason }) => Effect.succeed(skipped("ready", `the mirror does not answer: ${reason}`)))
  )

/** Whether members and clients prove themselves. `answerer` is what answers at the registry's address. */
export const clusterKey = (
  { answerer, choice, keys }: {
    readonly answerer: Answerer
    readonly choice: PeerAuthChoice
    /** The keys of the file, or why they cannot be read. */
    readonly keys: Option.Option<KeyRing | string>
  }
): Check => {
  if (choice.mode === "off") {
    return warning(
      "cluster-key",
      "--peer-auth=off: whoever reaches the mirror may read all images, and may say which image a tag means",
      "make a cluster key (spegel cluster-key generate) and set --cluster-key-file"
    )
  }
  if (Option.isSome(keys) && typeof keys.value === "string") {
    return problem("cluster-key", keys.value, "restore the file; the mirror does not start without it")
  }
  if (choice.mode === "prefer") {
    return warning(
      "cluster-key",
      "--peer-auth=prefer: members without the cluster key are served too",
      "set --peer-auth=require once all members have the key"
    )
  }
  return answerer._tag === "Mirror" && answerer.isOpen
    ? problem(
      "cluster-key",
      "--peer-auth=require, but the mirror that runs serves whoever asks",
      "restart it with the cluster key (--cluster-key-file)"
    )
    : ok("cluster-key", `--peer-auth=require, with the key file ${choice.path}`)
}
