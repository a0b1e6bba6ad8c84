/** A process of the benchmark with several nodes, driven by messages from its parent. */
import { type Implementation, type Located, type NodeUnderTest, start } from "./NodeUnderTest.ts"

export type Command =
  | {
    readonly _tag: "Start"
    readonly implementation: Implementation
    readonly addresses: ReadonlyArray<string>
    readonly port: number
    readonly bootstrap: ReadonlyArray<string>
    /** Where identities are kept. Default: in memory. */
    readonly dataDir?: string
    readonly refreshMillis?: number
  }
  | { readonly _tag: "Peers" }
  | { readonly _tag: "Provide"; readonly node: number; readonly keys: ReadonlyArray<string> }
  | { readonly _tag: "Find"; readonly node: number; readonly keys: ReadonlyArray<string>; readonly concurrency: number }
  | { readonly _tag: "Locate"; readonly node: number; readonly keys: ReadonlyArray<string>; readonly holder: string }
  | { readonly _tag: "Withdraw"; readonly node: number; readonly keys: ReadonlyArray<string> }
  | { readonly _tag: "StopNode"; readonly node: number }
  | { readonly _tag: "RestartNode"; readonly node: number; readonly keys: ReadonlyArray<string> }
  | { readonly _tag: "Usage" }
  | { readonly _tag: "Stop" }

/** The answer to each command, by its tag. */
export interface Answers {
  readonly Start: ReadonlyArray<string>
  readonly Peers: ReadonlyArray<number>
  readonly Provide: null
  /** Milliseconds of each lookup; negative if it did not find the key. */
  readonly Find: ReadonlyArray<number>
  readonly Locate: ReadonlyArray<Located>
  readonly Withdraw: null
  readonly StopNode: null
  readonly RestartNode: null
  readonly Usage: { readonly cpuMillis: number; readonly rssBytes: number }
  readonly Stop: null
}

const nodes: Array<NodeUnderTest> = []
/** How to start each node again. */
const starts: Array<() => Promise<NodeUnderTest>> = []

const nodeAt = (index: number): NodeUnderTest => {
  const node = nodes[index]
  if (node === undefined) throw new Error(`no node ${index}`)
  return node
}

const find = async (node: NodeUnderTest, keys: ReadonlyArray<string>, concurrency: number) => {
  const millis: Array<number> = []
  const work = [...keys]
  const one = async () => {
    for (let key = work.pop(); key !== undefined; key = work.pop()) {
      const started = performance.now()
      const found = await node.find(key).catch(() => false)
      const took = performance.now() - started
      millis.push(found ? took : -took)
    }
  }
  await Promise.all(Array.from({ length: concurrency }, one))
  return millis
}

const run = async (command: Command): Promise<Answers[Command["_tag"]]> => {
  switch (command._tag) {
    case "Start":
      starts.push(...command.addresses.map((address) => () => start({ ...command, address })))
      nodes.push(...await Promise.all(starts.map((startNode) => startNode())))
      return nodes.map(({ id }) => id)
    case "Peers":
      return Promise.all(nodes.map((node) => node.peers()))
    case "Provide":
      await nodeAt(command.node).provide(command.keys)
      return null
    case "Find":
      return find(nodeAt(command.node), command.keys, command.concurrency)
    case "Locate":
      return Promise.all(command.keys.map((key) => nodeAt(command.node).locate(key, command.holder)))
    case "Withdraw":
      await nodeAt(command.node).withdraw(command.keys)
      return null
    case "StopNode":
      await nodeAt(command.node).stop()
      return null
    case "RestartNode": {
      await nodeAt(command.node).stop()
      const restarted = await starts[command.node]?.()
      if (restarted === undefined) throw new Error(`no node ${command.node}`)
      nodes[command.node] = restarted
      await restarted.provide(command.keys)
      return null
    }
    case "Usage": {
      const { system, user } = process.cpuUsage()
      return { cpuMillis: (system + user) / 1000, rssBytes: process.memoryUsage.rss() }
    }
    case "Stop":
      await Promise.all(nodes.map((node) => node.stop()))
      return null
  }
}

process.on("disconnect", () => process.exit(0))
const reply = (answer: object) => void process.send?.(answer, () => undefined)

process.on("message", ({ command, id }: { readonly command: Command; readonly id: number }) => {
  run(command).then(
    (answer) => reply({ id, answer }),
    (error: unknown) => reply({ id, error: String(error) })
  )
})
