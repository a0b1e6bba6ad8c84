/** Measures the router against its bounds while nodes join, leave, freeze, restart and lose each other. */
import { execFile } from "node:child_process"
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { promisify } from "node:util"
import type { Bar } from "../Bar.ts"
import { percentile } from "../Statistics.ts"
import { sleep, until } from "../Waiting.ts"
import * as Cluster from "./Cluster.ts"
import { quiet } from "./measure.ts"

const run = promisify(execFile)

const at = <A>(items: ReadonlyArray<A>, index: number): A => {
  const item = items[index]
  if (item === undefined) throw new Error(`nothing at ${index}`)
  return item
}

const allKnow = (nodes: ReadonlyArray<Cluster.ClusterNode>, count: number) => async () =>
  (await Promise.all(nodes.map((node) => node.peers()))).every((peers) => peers >= count)

/** Whether each of `askers` names `holder` for the key; with `named` false, whether none of them does. */
const allSay = (askers: ReadonlyArray<Cluster.ClusterNode>, key: string, holder: string, named: boolean) => async () =>
  (await Promise.all(askers.map((asker) => asker.locate([key], holder)))).flat()
    .every(({ foundMillis }) => (foundMillis !== null) === named)

/** Waits until all nodes know each other and the cluster has settled. */
export const joined = async (cluster: Cluster.Cluster): Promise<void> => {
  await until(allKnow(cluster.nodes, cluster.nodes.length - 1), 60_000)
  await quiet(cluster)
}

const without = <A>(items: ReadonlyArray<A>, ...left: ReadonlyArray<A>) => items.filter((item) => !left.includes(item))

/** How soon a key is visible, and is gone when it is withdrawn or its node is stopped or killed. */
export const visibility = async (count: number, port: number): Promise<ReadonlyArray<Bar>> => {
  const cluster = await Cluster.startEach(count, port)
  try {
    await joined(cluster)
    const [holder, stopped, killed] = [at(cluster.nodes, 2), at(cluster.nodes, 3), at(cluster.nodes, 4)]
    const others = without(cluster.nodes, holder, stopped, killed)
    const visible: Array<number> = []
    const gone: Array<number> = []
    for (let round = 0; round < 5; round++) {
      const key = `visible:${round}`
      void holder.provide([key])
      visible.push(await until(allSay(others, key, holder.id, true), 10_000))
      await holder.withdraw([key])
      gone.push(await until(allSay(others, key, holder.id, false), 10_000))
    }
    await Promise.all([stopped.provide(["stopped"]), killed.provide(["killed"])])
    const stopping = until(allSay(others, "stopped", stopped.id, false), 10_000)
    await stopped.stop()
    const stoppedMillis = await stopping
    killed.signal("SIGKILL")
    const killedMillis = await until(allSay(others, "killed", killed.id, false), 40_000)
    return [
      { name: "a new key is visible everywhere", value: Math.max(...visible), bound: 1000, unit: "ms" },
      { name: "a withdrawn key is gone everywhere", value: Math.max(...gone), bound: 1000, unit: "ms" },
      { name: "the keys of a stopped node are gone", value: stoppedMillis, bound: 1000, unit: "ms" },
      { name: "the keys of a killed node are gone", value: killedMillis, bound: 35_000, unit: "ms" }
    ]
  } finally {
    await cluster.stop()
  }
}

/** A third of the nodes freezes or is killed. Meanwhile keys are looked up that both a live node and a lost one provide. */
export const thirdLost = async (
  count: number,
  port: number,
  signal: "SIGKILL" | "SIGSTOP"
): Promise<ReadonlyArray<Bar>> => {
  const cluster = await Cluster.startEach(count, port)
  const how = signal === "SIGSTOP" ? "frozen" : "killed"
  try {
    await joined(cluster)
    const lost = cluster.nodes.filter((_, index) => index % 3 === 1)
    const live = without(cluster.nodes, ...lost)
    const holder = at(live, 1)
    const keys = Array.from({ length: 400 }, (_, index) => `${how}:${index}`)
    await at(lost, 0).provide(keys)
    await holder.provide(keys)
    for (const node of lost) node.signal(signal)
    const found: Array<number> = []
    const total: Array<number> = []
    let failed = 0
    const begun = performance.now()
    for (let index = 0; performance.now() - begun < 40_000; index++) {
      const asker = at(without(live, holder), index % (live.length - 1))
      const [located] = await asker.locate([at(keys, index % keys.length)], holder.id)
      const [miss] = await asker.locate([`nobody:${index}`], holder.id)
      if (located === undefined || miss === undefined) continue
      if (located.foundMillis === null) failed++
      else found.push(located.foundMillis)
      total.push(located.totalMillis, miss.totalMillis)
      await sleep(20)
    }
    const bars = [
      { name: `a third ${how}: the live holder is named, p99`, value: percentile(found, 0.99), bound: 50, unit: "ms" },
      { name: `a third ${how}: the longest lookup or miss`, value: Math.max(...total), bound: 500, unit: "ms" },
      {
        name: `a third ${how}: lookups without the live holder, of ${found.length + failed}`,
        value: failed,
        bound: 0,
        unit: ""
      }
    ]
    if (signal === "SIGKILL") return bars
    for (const node of lost) node.signal("SIGCONT")
    const back = await until(allKnow(cluster.nodes, count - 1), 90_000)
    return [...bars, { name: "frozen ones resumed are members again", value: back, bound: 60_000, unit: "ms" }]
  } finally {
    for (const node of cluster.nodes) node.signal("SIGCONT")
    await cluster.stop()
  }
}

/** Nodes restart while keys are looked up. Each key has two providers, one of which is always up. */
export const restarts = async (count: number, port: number): Promise<ReadonlyArray<Bar>> => {
  const dataDir = await mkdtemp(join(tmpdir(), "spegel-bench-"))
  const cluster = await Cluster.startEach(count, port, { dataDir })
  try {
    await joined(cluster)
    const keysOf = (index: number) => [`pair:${index}`, `pair:${(index + count / 2) % count}`]
    await Promise.all(cluster.nodes.map((node, index) => node.provide(keysOf(index))))
    let restarting = -1
    const state = { running: true }
    let failed = 0
    let asked = 0
    const lookUp = async () => {
      for (let index = 0; state.running; index++) {
        await sleep(5)
        const asker = (index * 7) % count
        if (asker === restarting) continue
        // Not a key of the asker: it would not find itself, and the other provider may be restarting.
        const key = (asker + 1 + index % (count / 2 - 1)) % count
        const located = await at(cluster.nodes, asker).locate([`pair:${key}`], "").catch(() => undefined)
        if (asker === restarting) continue
        asked++
        if (located?.[0]?.any !== true) failed++
      }
    }
    const roll = async () => {
      try {
        for (const [index, node] of cluster.nodes.entries()) {
          restarting = index
          await node.restart(keysOf(index))
          restarting = -1
          await sleep(500)
        }
      } finally {
        state.running = false
      }
    }
    await Promise.all([roll(), lookUp()])

    await Promise.all(cluster.nodes.map((node, index) => node.restart(keysOf(index))))
    let failedAfter = 0
    let askedAfter = 0
    const begun = performance.now()
    while (performance.now() - begun < 5000) {
      for (const [asker, node] of cluster.nodes.entries()) {
        const [located] = await node.locate([`pair:${(asker + 1) % count}`], "")
        askedAfter++
        if (located?.any !== true) failedAfter++
      }
    }
    return [
      { name: `rolling restart: failed lookups of ${asked}`, value: failed, bound: 0, unit: "" },
      { name: `all restarted at once: failed lookups of ${askedAfter}`, value: failedAfter, bound: 0, unit: "" }
    ]
  } finally {
    await cluster.stop()
    await rm(dataDir, { recursive: true, force: true })
  }
}

/** Two halves of a network, in separate namespaces, lose the link between them for a while. Needs root. */
export const partition = async (port: number): Promise<ReadonlyArray<Bar>> => {
  const half = 10
  const name = (side: number) => `spegel-bench-${side}`
  const link = (side: number) => `spegelb${side}`
  const ip = (...args: ReadonlyArray<string>) => run("ip", args)
  const inside = (side: number, ...args: ReadonlyArray<string>) => ip("-n", name(side), ...args)
  const remove = () => Promise.all([0, 1].map((side) => ip("netns", "del", name(side)).catch(() => undefined)))
  await remove()
  await Promise.all([0, 1].map((side) => ip("netns", "add", name(side))))
  try {
    await ip("link", "add", link(0), "netns", name(0), "type", "veth", "peer", "name", link(1), "netns", name(1))
    for (const side of [0, 1]) {
      await inside(side, "link", "set", "lo", "up")
      for (let node = 1; node <= half; node++) {
        await inside(side, "addr", "add", `10.99.${side}.${node}/32`, "dev", "lo")
      }
      await inside(side, "addr", "add", `10.99.9.${side + 1}/24`, "dev", link(side))
      await inside(side, "link", "set", link(side), "up")
      await inside(side, "route", "add", `10.99.${1 - side}.0/24`, "via", `10.99.9.${2 - side}`)
    }
    const addresses = Array.from({ length: 2 * half }, (_, index) => `10.99.${index % 2}.${(index >> 1) + 1}`)
    const cluster = await Cluster.start({
      implementation: "spegel-ts",
      addresses,
      port,
      nodesPerProcess: 1,
      namespaceOf: (address) => name(Number(address.split(".")[2]))
    })
    try {
      await joined(cluster)
      await inside(0, "link", "set", link(0), "down")
      const parted = await until(
        async () => (await cluster.peers()).every((peers) => peers <= half - 1),
        90_000
      )
      await inside(0, "link", "set", link(0), "up")
      await inside(0, "route", "replace", "10.99.1.0/24", "via", "10.99.9.2")
      const healed = await until(allKnow(cluster.nodes, 2 * half - 1), 90_000)
      return [
        { name: "10 + 10 parted: each half knows it", value: parted, bound: 60_000, unit: "ms" },
        { name: "10 + 10 healed: one network again", value: healed, bound: 30_000, unit: "ms" }
      ]
    } finally {
      await cluster.stop()
    }
  } finally {
    await remove()
  }
}
