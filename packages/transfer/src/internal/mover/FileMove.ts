/** A file's bytes to a client, by sendfile(2). */
import type { Progress } from "../../Progress.ts"
import { growthMillis } from "../Growth.ts"
import { ColdFile } from "./ColdFile.ts"
import { errno, type Libc } from "./Libc.ts"
import { type ClientEnd, isTransient, type Move, progressOf, type Tools, turnBytes, type Waits } from "./Move.ts"
import type { Ending, Job } from "./Protocol.ts"

export class FileMove implements Move {
  readonly #libc: Libc
  readonly #job: Job
  readonly #client: ClientEnd
  readonly #progress: Progress
  readonly #disk: ColdFile
  #moved = 0

  constructor(tools: Tools, client: ClientEnd) {
    this.#libc = tools.libc
    this.#job = tools.job
    this.#client = client
    this.#progress = progressOf(tools.job)
    this.#disk = new ColdFile(tools.libc, tools.job.from, tools.job.offset + tools.job.length)
  }

  step(): Ending | Waits {
    const { from, length, offset, to } = this.#job
    for (let turn = turnBytes; turn > 0;) {
      const position = offset + this.#moved
      const cached = this.#disk.cachedFrom(position)
      if (cached === 0) return this.#wait(this.#disk.patienceMillis)
      const sent = this.#libc.sendfile(to, from, position, Math.min(length - this.#moved, cached, turn))
      if (sent === 0) return this.#atEnd()
      if (sent < 0) {
        const code = this.#libc.errno()
        return isTransient(code) ? this.#client.waitForRoom() : this.#failed(code)
      }
      this.#moved += sent
      this.#progress.take(sent)
      this.#progress.move(sent)
      turn -= sent
      if (this.#moved === length) return { _tag: "Complete", source: "quiet" }
    }
    return this.#client.waitForRoom()
  }

  close(): void {
    this.#progress.waitsNoMore()
  }

  #wait(napMillis: number): Waits {
    this.#progress.waits()
    this.#client.watchForEnd()
    return { napMillis }
  }

  #atEnd(): Ending | Waits {
    return this.#job.kind === "growing file"
      ? this.#wait(growthMillis)
      : { _tag: "SourceEnded", reason: "the file ended" }
  }

  #failed(code: number): Ending {
    if (code === errno.EIO) return { _tag: "SourceEnded", reason: "the file cannot be read (EIO): it ended" }
    const impossible = code === errno.EINVAL || code === errno.EOPNOTSUPP
    return impossible && this.#moved === 0 ? { _tag: "Refused" } : { _tag: "ClientGone" }
  }
}
