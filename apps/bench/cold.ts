// latency of a hot stream's chunks while cold files are served: node cold.ts MODE
import { Transfer } from "/work/wt/transfer/packages/transfer/src/Transfer.ts"
import { Progress } from "/work/wt/transfer/packages/transfer/src/Progress.ts"
import * as Connections from "/work/wt/transfer/packages/transfer/src/testkit/Connections.ts"
import { Effect, Fiber } from "effect"
import { open, stat, writeFile } from "node:fs/promises"
import { existsSync } from "node:fs"
import { execSync } from "node:child_process"
import { randomBytes } from "node:crypto"
const N = 4, size = 24 * 1024 * 1024
for (let i = 0; i < N; i++) if (!existsSync(`/work/cold${i}`)) { const h = await open(`/work/cold${i}`, "w"); for (let k = 0; k < size / (1 << 20); k++) await h.write(randomBytes(1 << 20)); await h.sync(); await h.close() }
await writeFile("/work/hot", randomBytes(256 * 1024))
for (let i = 0; i < N; i++) execSync(`sync /work/cold${i}; dd if=/work/cold${i} iflag=nocache count=0 status=none`)
const main = Effect.gen(function*() {
  const { move } = yield* Transfer
  const cold = Effect.fnUntraced(function*(i: number) {
    const c = yield* Connections.client; c.far.on("data", () => {}); c.far.resume()
    const handle = yield* Effect.acquireRelease(Effect.promise(() => open(`/work/cold${i}`)), h => Effect.promise(() => h.close()))
    yield* move({ source: { _tag: "File", handle, offset: 0 }, client: { socket: c.near }, length: size, progress: new Progress() })
  }, Effect.scoped)
  const t0 = performance.now()
  const colds = yield* Effect.forkChild(Effect.forEach([...Array(N).keys()], cold, { concurrency: "unbounded" }))
  const lat: number[] = []
  let done = false
  const hot = Effect.gen(function*() {
    const c = yield* Connections.client; c.far.on("data", () => {}); c.far.resume()
    const handle = yield* Effect.acquireRelease(Effect.promise(() => open(`/work/hot`)), h => Effect.promise(() => h.close()))
    while (!done) { const b = performance.now(); yield* move({ source: { _tag: "File", handle, offset: 0 }, client: { socket: c.near }, length: 256 * 1024, progress: new Progress() }); lat.push(performance.now() - b); yield* Effect.sleep(5) }
  }).pipe(Effect.scoped)
  const h = yield* Effect.forkChild(hot)
  yield* Fiber.join(colds); const t = (performance.now() - t0) / 1000; done = true; yield* Fiber.join(h)
  lat.sort((a, b) => a - b)
  const cpu = process.cpuUsage()
  console.log(`cold ${(N * size / 2 ** 30 / t).toFixed(2)} GiB/s; hot p50 ${lat[lat.length >> 1]!.toFixed(1)} p99 ${lat[Math.floor(lat.length * 0.99)]!.toFixed(1)} max ${lat.at(-1)!.toFixed(1)} ms n=${lat.length}; cpu ${((cpu.user + cpu.system) / 1e6).toFixed(2)} s`)
}).pipe(Effect.scoped, Effect.provide(process.argv[2] === "portable" ? Transfer.layerPortable : Transfer.layerZeroCopy))
await Effect.runPromise(main as any)
