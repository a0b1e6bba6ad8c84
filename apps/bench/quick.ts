// quick: targets in turns; short
import * as Load from "/work/wt/transfer/apps/bench/src/bytes/Load.ts"
import * as Content from "/work/wt/transfer/apps/bench/src/bytes/Content.ts"
import * as Processes from "/work/wt/transfer/apps/bench/src/bytes/Processes.ts"
import * as Servers from "/work/wt/transfer/apps/bench/src/bytes/Servers.ts"
import { mkdtemp, rm } from "node:fs/promises"
const dir = await mkdtemp("/tmp/q-"); await Content.make(dir)
const large = await Content.blob(dir, 256 * 1024 * 1024)
const kinds = (process.argv[2] ?? "serve,relay").split(",")
const planes = (process.argv[3] ?? "nginx,zero-copy,portable").split(",")
const clients = (process.argv[4] ?? "1,8").split(",").map(Number)
const rounds = Number(process.argv[5] ?? 2)
const running: any[] = []
let port = 27001 + Math.floor(Math.random() * 500) * 10
const at = () => ({ host: "127.0.0.1", port: port++ })
const S = "/work/wt/transfer/apps/bench/src/bytes/TransferServer.ts"
try {
  const up = at(); running.push(await Servers.nginxFiles(dir, up))
  for (const kind of kinds) {
    const src = kind === "serve" ? Content.files(dir) : `http://${up.host}:${up.port}`
    const ts: any[] = []
    for (const plane of planes) {
      const a = at()
      const r = plane === "nginx" ? await (kind === "serve" ? Servers.nginxFiles(dir, a) : Servers.nginxProxy(dir, a, up))
        : await Processes.start(process.execPath, ["--conditions=source", S, kind, plane, a.host, String(a.port), src], a)
      running.push(r)
      ts.push({ name: plane, pid: r.pid, ...a, path: large.path, smallPath: undefined, fields: [], out: [] })
    }
    for (const t of ts) await Load.run(t, 1, 1, running.map(r => r.pid))
    for (let i = 0; i < rounds; i++) for (const c of clients) for (const t of ts) {
      const r = await Load.run(t, c, c === 1 ? 4 : 1, running.map(r => r.pid))
      t.out.push(`c${c}: cpu ${r.cpuSecondsPerGib!.toFixed(3)} all ${r.serversCpuSecondsPerGib.toFixed(3)} speed ${r.gibPerSecond.toFixed(2)} others ${r.otherCpus.toFixed(2)}`)
    }
    for (const t of ts) console.log(kind.padEnd(6), t.name.padEnd(10), (await Processes.rssMiB(t.pid)).toFixed(0), "MiB\n   ", t.out.join("\n    "))
  }
} finally { await Promise.all(running.map(r => r.stop())); await rm(dir, { recursive: true }) }
