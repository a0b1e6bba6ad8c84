/** Reads what the mirrors' processes use. */
import { Effect } from "effect"
import { readdir, readFile } from "node:fs/promises"
import type * as Growth from "./Growth.ts"
import type { Mirrors } from "./Mirrors.ts"

/** Memory and descriptors of all mirrors; one that ends just now has none. */
export const take = (mirrors: Mirrors, seconds: number) =>
  Effect.promise(async () => {
    const readings = await Promise.all(mirrors.running.map(async ({ child: { pid = 0 }, node }) => {
      const [status, descriptors] = await Promise.all([
        readFile(`/proc/${pid}/status`, "utf8").catch(() => ""),
        readdir(`/proc/${pid}/fd`).catch(() => [])
      ])
      const rss = Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0) * 1024
      return { node: node.name, pid, seconds, rss, descriptors: descriptors.length } satisfies Growth.Reading
    }))
    return readings.filter(({ descriptors, rss }) => rss > 0 && descriptors > 0)
  })
