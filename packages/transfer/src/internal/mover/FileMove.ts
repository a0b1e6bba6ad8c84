/** Moves a file's bytes to a client by sendfile(2). */
import { growthMillis } from "../Growth.ts"
import { ColdFile } from "./ColdFile.ts"
import { errno } from "./Libc.ts"
import { endOfClient, isTransient, type Move, type Tools, turnBytes, waitForRoom, type Waits } from "./Move.ts"
import type { Ending } from "./Protocol.ts"

export class FileMove implements Move {
  readonly #tools: Tools
  readonly #disk: ColdFile
  #moved = 0

  constructor(tools: Tools) {
    const { job, libc } = tools
    this.#tools = tools
    this.#disk = new ColdFile(libc, job.from, job.offset + job.length)
  }

  step(): Ending | Waits {
    const { job: { from, length, offset, to }, libc, progress } = this.#tools
    for (let turn = turnBytes; turn > 0;) {
      const position = offset + this.#moved
      const cached = this.#disk.cachedFrom(position)
      if (cached === 0) return this.#wait(this.#disk.patienceMillis)
      const wanted = Math.min(length - this.#moved, cached, turn)
      const sent = libc.sendfile(to, from, position, wanted)
      if (sent === 0) return this.#atEnd()
      if (sent < 0) {
        const code = libc.errno()
        return isTransient(code) ? waitForRoom(this.#tools) : this.#failed(code)
      }
      this.#moved += sent
      progress.take(sent)
      progress.move(sent)
      turn -= sent
      if (this.#moved === length) return { _tag: "Complete", source: "quiet" }
      // The client takes no more now: the next call would only say so.
      if (sent < wanted) break
    }
    return waitForRoom(this.#tools)
  }

  #wait(napMillis: number): Waits {
    this.#tools.progress.waits()
    return { napMillis }
  }

  #atEnd(): Ending | Waits {
    return this.#tools.job.kind === "growing file"
      ? this.#wait(growthMillis)
      : { _tag: "SourceEnded", reason: "the file ended" }
  }

  #failed(code: number): Ending {
    if (code === errno.EIO) return { _tag: "SourceEnded", reason: "the file cannot be read (EIO): it ended" }
    const impossible = code === errno.EINVAL || code === errno.EOPNOTSUPP
    return impossible && this.#moved === 0 ? { _tag: "Refused" } : endOfClient(code)
  }
}
