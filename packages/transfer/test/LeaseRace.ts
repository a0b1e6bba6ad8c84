/**
 * A program that asks for the writer of a file while a thread opens it for writing again and again, until leases were
 * broken that this process held. Prints `survived <number>`.
 */
import * as FileLease from "@spegel-ts/transfer/FileLease"
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setImmediate } from "node:timers/promises"
import { isMainThread, Worker, workerData } from "node:worker_threads"

const race = async () => {
  const directory = mkdtempSync(join(tmpdir(), "lease-"))
  const path = join(directory, "file")
  writeFileSync(path, "")
  const file = openSync(path, "r")
  const writer = new Worker(new URL(import.meta.url), { workerData: path })
  const broken: Array<string> = []
  process.on("SIGURG", (signal) => broken.push(signal))
  const until = performance.now() + 30_000
  while (broken.length < 10 && performance.now() < until) {
    for (let turn = 0; turn < 1000; turn++) FileLease.writerOf(file)
    await setImmediate()
  }
  await writer.terminate()
  closeSync(file)
  rmSync(directory, { recursive: true })
  process.stdout.write(`survived ${broken.length}\n`)
}

if (isMainThread) await race()
else {
  for (;;) closeSync(openSync(String(workerData), "a"))
}
