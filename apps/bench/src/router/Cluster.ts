/** The benchmark's cluster: processes with a few nodes each, all on one port of addresses of their own. */
import { type ChildProcess, fork } from "node:child_process"
import { fileURLToPath } from "node:url"
import type { Implementation } from "./NodeUnderTest.ts"
import type { Answers, Command } from "./worker.ts"

const worker = fileURLToPath(new URL("./worker.ts", import.meta.url))

interface Worker {
  readonly child: ChildProcess
  readonly ask: <Tag extends Command["_tag"]>(command: Extract<Command, { _tag: Tag }>) => Promise<Answers[Tag]>
}

const startWorker = (): Worker => {
  const child = fork(worker, { execArgv: ["--conditions=source"] })
  const waiting = new Map<number, { resolve: (answer: never) => void; reject: (error: Error) => void }>()
  let next = 0
  child.on("message", ({ answer, error, id }: { id: number; answer: never; error?: string }) => {
    const asker = waiting.get(id)
    waiting.delete(id)
    if (error === undefined) asker?.resolve(answer)
    else asker?.reject(new Error(error))
  })
  child.on("exit", (code) => {
    for (const { reject } of waiting.values()) reject(new Error(`a worker ended with code ${code}`))
  })
  return {
    child,
    ask: (command) =>
      new Promise((resolve, reject) => {
        const id = next++
        waiting.set(id, { resolve, reject })
        child.send({ id, command })
      })
  }
}

export interface ClusterNode {
  readonly id: string
  readonly provide: (keys: ReadonlyArray<string>) => Promise<null>
  readonly find: (keys: ReadonlyArray<string>, concurrency: number) => Promise<ReadonlyArray<number>>
}

export interface Cluster {
  /** When the nodes were told to start. */
  readonly startedAt: number
  readonly nodes: ReadonlyArray<ClusterNode>
  /** Peers that each node knows. */
  readonly peers: () => Promise<ReadonlyArray<number>>
  /** CPU of all processes so far, and their resident memory. */
  readonly usage: () => Promise<{ readonly cpuMillis: number; readonly rssBytes: number }>
  readonly stop: () => Promise<void>
}

const nodesPerProcess = 10

/** Starts all nodes at once; the first one is where the others begin. */
export const start = async (implementation: Implementation, count: number, port: number): Promise<Cluster> => {
  const addresses = Array.from({ length: count }, (_, index) => `127.9.${index >> 7}.${(index & 127) + 1}`)
  const workers: Array<Worker> = []
  const parts: Array<ReadonlyArray<string>> = []
  for (let from = 0; from < count; from += nodesPerProcess) {
    workers.push(startWorker())
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
    // Processes first, then nodes: what joins is a cluster, not a start of programs.
    await Promise.all(workers.map(({ ask }) => ask({ _tag: "Peers" })))
    const startedAt = performance.now()
    const ids = await Promise.all(
      workers.map(({ ask }, index) =>
        ask({ _tag: "Start", implementation, addresses: parts[index] ?? [], port, bootstrap: addresses[0] ?? "" })
      )
    )
    return {
      startedAt,
      nodes: workers.flatMap(({ ask }, index) =>
        (ids[index] ?? []).map((id, node) => ({
          id,
          provide: (keys) => ask({ _tag: "Provide", node, keys }),
          find: (keys, concurrency) => ask({ _tag: "Find", node, keys, concurrency })
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
