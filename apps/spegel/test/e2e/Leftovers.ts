/** Finds processes and files that tests left behind: all of them have the temporary directory of the tests in their names. */
import { Effect } from "effect"
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

/** Text of a file under /proc; a process may have ended since it was listed. */
const read = (path: string): string => {
  try {
    return readFileSync(path, "utf8")
  } catch {
    return ""
  }
}

/** A process that has its environment from the tests, or a namespace of its own with mounts of theirs. */
const processes = (directory: string): ReadonlyArray<string> =>
  readdirSync("/proc").filter((name) => /^[0-9]+$/.test(name) && Number(name) !== process.pid).flatMap((pid) => {
    const started = read(`/proc/${pid}/environ`).split("\0").includes(`TMPDIR=${directory}`)
    const mounted = read(`/proc/${pid}/mountinfo`).includes(directory)
    return started || mounted ? [`${pid} ${read(`/proc/${pid}/cmdline`).replaceAll("\0", " ")}`] : []
  })

/** Makes a directory be the temporary one, for this process and those it starts, until it is given back. */
export const watch = () => {
  const before = process.env["TMPDIR"]
  const directory = mkdtempSync(join(tmpdir(), "spegel-suite-"))
  process.env["TMPDIR"] = directory
  return {
    /** Processes, mounts, unix sockets and files that are still there. */
    list: Effect.sync(() => ({
      processes: processes(directory),
      mounts: read("/proc/self/mountinfo").split("\n").filter((line) => line.includes(directory)),
      sockets: read("/proc/net/unix").split("\n").filter((line) => line.includes(directory)),
      files: readdirSync(directory, { recursive: true })
    })),
    restore: () => {
      if (before === undefined) delete process.env["TMPDIR"]
      else process.env["TMPDIR"] = before
      rmSync(directory, { recursive: true, force: true })
    }
  }
}
