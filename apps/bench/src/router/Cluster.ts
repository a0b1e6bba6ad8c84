/** The benchmark's cluster: processes with a few nodes each. Every node has its own address, and all have the same port. */
import { type ChildProcess, spawn } from "node:child_process"
import { fileURLToPath } from "node:url"
import * as Image from "../Image.ts"
import type { Implementation, Located } from "./NodeUnderTest.ts"
import type { Answers, Command } from "./worker.ts"

const worker = fileURLToPath(new URL("./worker.ts", import.meta.url))

/** The image's flags are for one node: a process with several gets a young generation for each of them. */
const flagsFor = (nodes: number): ReadonlyArray<string> =>
  Image.flags.map((flag) =>
    flag.replace(
      /^(--max-semi-space-size=)(\d+)$/,
      (_all, name: string, mebibytes: string) => `${name}${Number(mebibytes) * nodes}`
    )
  )

interface Worker {
  readonly child: ChildProcess
  readonly ask: <Tag extends Command["_tag"]>(command: Extract<Command, { _tag: Tag }>) => Promise<Answers[Tag]>
}

const startWorker = (namespace: string | undefined, nodes: number): Worker => {
  const command = [process.execPath, ...flagsFor(nodes), "--conditions=@spegel-ts/source", worker]
  const [program = "", ...args] = namespace === undefined ? command : ["ip", "netns", "exec", namespace, ...command]
  const child = spawn(program, args, {
    stdio: ["ignore", "inherit", "inherit", "ipc"],
    env: { ...process.env, ...Image.environment }
  })
  const waiting = new Map<number, { resolve: (answer: never) => void; reject: (error: Error) => void }>()
  let next = 0
  child.on("message", ({ answer, error, id }: { id: number; answer: never; error?: string }) => {
    const asker = waiting.get(id)
    waiting.delete(id)
    if (error === undefined) asker?.resolve(answer)
    else asker?.reject(new Error(error))
  })
  // Requests to a worker that was killed fail below.
  child.on("error", () => undefined)
  child.on("exit", (code) => {
    for (const { reject } of waiting.values()) reject(new Error(`a worker ended with code ${code}`))
  })
  return {
    child,
    ask: (command) =>
      new Promise((resolve, reject) => {
        const id = next++
        waiting.set(id, { resolve, reject })
        child.send({ id, command }, (error) => {
          if (error !== null) reject(error)
        })
      })
  }
}

export interface ClusterNode {
  readonly id: string
  readonly provide: (keys: ReadonlyArray<string>) => Promise<null>
  readonly find: (keys: ReadonlyArray<string>, concurrency: number) => Promise<ReadonlyArray<number>>
  /** Looks all keys up at once, to the end, and records when `holder` was named. */
  readonly locate: (keys: ReadonlyArray<string>, holder: string) => Promise<ReadonlyArray<Located>>
  readonly withdraw: (keys: ReadonlyArray<string>) => Promise<null>
  /** Ends the node as SIGTERM would. */
  readonly stop: () => Promise<null>
  /** Ends it, starts it with the same identity, and provides `keys`. */
  readonly restart: (keys: ReadonlyArray<string>) => Promise<null>
  readonly peers: () => Promise<number>
  /** Resident memory of its process. */
  readonly rssBytes: () => Promise<number>
  /** Sends its whole process a signal. */
  readonly signal: (signal: NodeJS.Signals) => void
}

export interface Cluster {
  /** When the nodes were told to start, by `performance.now()`. */
  readonly startedAt: number
  readonly nodes: ReadonlyArray<ClusterNode>
  /** Peers that each node knows. */
  readonly peers: () => Promise<ReadonlyArray<number>>
  /** CPU of all processes so far, and their resident memory. */
  readonly usage: () => Promise<{ readonly cpuMillis: number; readonly rssBytes: number }>
  readonly stop: () => Promise<void>
}

export interface ClusterOptions {
  readonly implementation: Implementation
  readonly addresses: ReadonlyArray<string>
  readonly port: number
  readonly nodesPerProcess: number
  /** Network namespace of an address. Default: this process's. */
  readonly namespaceOf?: (address: string) => string
  readonly dataDir?: string
  /** How often own records are sent again. Default: the router's. */
  readonly refreshMillis?: number
}

/** Loopback addresses, one for each node. */
export const loopbackAddresses = (count: number): ReadonlyArray<string> =>
  Array.from({ length: count }, (_, index) => `127.9.${index >> 7}.${(index & 127) + 1}`)

/** Starts all nodes at once. The first three are the bootstrap peers. */
export const start = async (options: ClusterOptions): Promise<Cluster> => {
  const { addresses, namespaceOf, nodesPerProcess } = options
  const count = addresses.length
  const workers: Array<Worker> = []
  const parts: Array<ReadonlyArray<string>> = []
  for (let from = 0; from < count; from += nodesPerProcess) {
    workers.push(startWorker(namespaceOf?.(addresses[from] ?? ""), nodesPerProcess))
    parts.push(addresses.slice(from, from + nodesPerProcess))
  }
  const stop = async () => {
    await Promise.race([
      Promise.all(workers.map(({ ask }) => ask({ _tag: "Stop" }).catch(() => null))),
      new Promise((resolve) => setTimeout(resolve, 5000))
    ])
    for (const { child } of workers) child.kill("SIGKILL")
  }
  try {
    // All processes have to run before the first node starts, so that joining does not include their start.
    await Promise.all(workers.map(({ ask }) => ask({ _tag: "Peers" })))
    const startedAt = performance.now()
    const ids = await Promise.all(
      workers.map(({ ask }, index) =>
        ask({
          _tag: "Start",
          implementation: options.implementation,
          addresses: parts[index] ?? [],
          port: options.port,
          bootstrap: addresses.slice(0, 3),
          ...(options.dataDir === undefined ? {} : { dataDir: options.dataDir }),
          ...(options.refreshMillis === undefined ? {} : { refreshMillis: options.refreshMillis })
        })
      )
    )
    return {
      startedAt,
      nodes: workers.flatMap(({ ask, child }, index) =>
        (ids[index] ?? []).map((id, node) => ({
          id,
          provide: (keys) => ask({ _tag: "Provide", node, keys }),
          find: (keys, concurrency) => ask({ _tag: "Find", node, keys, concurrency }),
          locate: (keys, holder) => ask({ _tag: "Locate", node, keys, holder }),
          withdraw: (keys) => ask({ _tag: "Withdraw", node, keys }),
          stop: () => ask({ _tag: "StopNode", node }),
          restart: (keys) => ask({ _tag: "RestartNode", node, keys }),
          peers: async () => (await ask({ _tag: "Peers" }))[node] ?? 0,
          rssBytes: async () => (await ask({ _tag: "Usage" })).rssBytes,
          signal: (signal) => void child.kill(signal)
        } satisfies ClusterNode))
      ),
      peers: async () => (await Promise.all(workers.map(({ ask }) => ask({ _tag: "Peers" })))).flat(),
      usage: async () => {
        const usages = await Promise.all(workers.map(({ ask }) => ask({ _tag: "Usage" })))
        return {
          cpuMillis: usages.reduce((sum, { cpuMillis }) => sum + cpuMillis, 0),
          rssBytes: usages.reduce((sum, { rssBytes }) => sum + rssBytes, 0)
        }
      },
      stop
    }
  } catch (error) {
    await stop()
    throw error
  }
}

/** Nodes of our router, each in its own process, so that one can be stopped or killed. */
export const startEach = (
  count: number,
  port: number,
  options: Pick<ClusterOptions, "dataDir"> = {}
): Promise<Cluster> =>
  start({
    implementation: "spegel-ts",
    addresses: loopbackAddresses(count),
    port,
    nodesPerProcess: 1,
    ...options
  })
