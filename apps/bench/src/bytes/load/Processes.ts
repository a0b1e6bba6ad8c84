/** Processes of a benchmark: their start, their CPU time, their memory and their end. */
import { type ChildProcess, spawn } from "node:child_process"
import { readdir, readFile } from "node:fs/promises"
import { connect } from "node:net"
import { until } from "../../Waiting.ts"

export interface Running {
  readonly pid: number
  readonly stop: () => Promise<void>
}

const answers = (host: string, port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connect({ host, port })
    socket.on("connect", () => resolve(true)).on("error", () => resolve(false)).on("close", () => resolve(false))
    socket.on("connect", () => socket.destroy())
  })

const children = new Set<ChildProcess>()
/** A benchmark that is called off leaves no server behind. */
process.once("exit", () => {
  for (const child of children) child.kill("SIGKILL")
})

/** Starts a server; ready once it accepts connections. */
export const start = async (
  command: ReadonlyArray<string>,
  listening: { readonly host: string; readonly port: number; readonly enter?: ReadonlyArray<string> },
  environment: Readonly<Record<string, string>> = {}
): Promise<Running> => {
  const [program = "", ...args] = [...listening.enter ?? [], ...command]
  const child: ChildProcess = spawn(program, args, {
    stdio: ["ignore", "ignore", "pipe"],
    env: { ...process.env, ...environment }
  })
  children.add(child)
  child.once("close", () => children.delete(child))
  let errors = ""
  child.stderr?.on("data", (chunk: Buffer) => {
    errors = (errors + chunk.toString()).slice(-4000)
  })
  const ended = new Promise<void>((resolve) => child.once("close", () => resolve()).once("error", () => resolve()))
  const limitMillis = 30_000
  const waited = await until(
    async () => child.exitCode !== null || await answers(listening.host, listening.port),
    limitMillis
  )
  if (child.pid === undefined || child.exitCode !== null || waited >= limitMillis) {
    child.kill("SIGKILL")
    throw new Error(`${command.join(" ")} does not listen on ${listening.host}:${listening.port}: ${errors}`)
  }
  return {
    pid: child.pid,
    stop: async () => {
      child.kill("SIGKILL")
      await ended
    }
  }
}

/** CPU seconds of a process so far, all its threads, by the scheduler's own clock. */
export const cpuSeconds = async (pid: number): Promise<number> => {
  const threads = await readdir(`/proc/${pid}/task`)
  const times = await Promise.all(
    threads.map((thread) => readFile(`/proc/${pid}/task/${thread}/schedstat`, "utf8").catch(() => "0"))
  )
  return times.reduce((sum, text) => sum + Number(text.split(" ", 1)[0]), 0) / 1e9
}

/** CPU seconds that everybody on this machine has used so far. */
export const machineCpuSeconds = async (): Promise<number> => {
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0] =
    (/^cpu +(.*)$/m.exec(await readFile("/proc/stat", "utf8"))?.[1] ?? "").split(" ").map(Number)
  return (user + nice + system + irq + softirq) / 100
}

/** Resident memory of a process in MiB. */
export const rssMiB = async (pid: number): Promise<number> =>
  Number(/^VmRSS:\s+(\d+)/m.exec(await readFile(`/proc/${pid}/status`, "utf8"))?.[1] ?? 0) / 1024

/** The first value of a metric of a daemon, whose metrics are at `url`; 0 where there is none. */
export const metric = async (url: string, name: string): Promise<number> => {
  const text = await fetch(`${url}/metrics`).then((response) => response.text(), () => "")
  return Number(new RegExp(`^${name}(?:\\{[^}]*\\})? ([\\d.e+]+)`, "m").exec(text)?.[1] ?? 0)
}
