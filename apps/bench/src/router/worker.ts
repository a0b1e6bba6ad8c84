/** A process of the benchmark with several nodes, driven by messages of its parent. */
import { type Implementation, type NodeUnderTest, start } from "./NodeUnderTest.ts"

export type Command =
  | {
    readonly _tag: "Start"
    readonly implementation: Implementation
    readonly addresses: ReadonlyArray<string>
    readonly port: number
    readonly bootstrap: string
  }
  | { readonly _tag: "Peers" }
  | { readonly _tag: "Provide"; readonly node: number; readonly keys: ReadonlyArray<string> }
  | { readonly _tag: "Find"; readonly node: number; readonly keys: ReadonlyArray<string>; readonly concurrency: number }
  | { readonly _tag: "Usage" }
  | { readonly _tag: "Stop" }

/** What each command answers, by its tag. */
export interface Answers {
  readonly Start: ReadonlyArray<string>
  readonly Peers: ReadonlyArray<number>
  readonly Provide: null
  /** Milliseconds of each lookup; negative where it did not find the key. */
  readonly Find: ReadonlyArray<number>
  readonly Usage: { readonly cpuMillis: number; readonly rssBytes: number }
  readonly Stop: null
}

const nodes: Array<NodeUnderTest> = []

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
      nodes.push(
        ...await Promise.all(
          command.addresses.map((address) => start(command.implementation, address, command.port, command.bootstrap))
        )
      )
      return nodes.map(({ id }) => id)
    case "Peers":
      return Promise.all(nodes.map((node) => node.peers()))
    case "Provide":
      await nodeAt(command.node).provide(command.keys)
      return null
    case "Find":
      return find(nodeAt(command.node), command.keys, command.concurrency)
    case "Usage": {
      const { system, user } = process.cpuUsage()
      return { cpuMillis: (system + user) / 1000, rssBytes: process.memoryUsage.rss() }
    }
    case "Stop":
      await Promise.all(nodes.map((node) => node.stop()))
      return null
  }
}

process.on("message", ({ command, id }: { readonly command: Command; readonly id: number }) => {
  run(command).then(
    (answer) => process.send?.({ id, answer }),
    (error: unknown) => process.send?.({ id, error: String(error) })
  )
})
