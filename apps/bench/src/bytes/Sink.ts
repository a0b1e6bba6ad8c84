/**
 * The clients, in a process of their own, whose cost counts for nobody: raw sockets that read into one buffer. Takes a
 * `Job` as its argument and prints an `Outcome`.
 */
import { connect, type Socket } from "node:net"

export interface Job {
  readonly host: string
  readonly port: number
  readonly path: string
  readonly fields: ReadonlyArray<string>
  readonly clients: number
  /** Requests of each client, one after another. */
  readonly requests: number
  /** Bytes per second that each client takes; 0 for all that it can get. */
  readonly bytesPerSecond: number
}

export interface Outcome {
  readonly bytes: number
  readonly seconds: number
  readonly cpuSeconds: number
}

const tickMillis = 50

const run = async (job: Job): Promise<Outcome> => {
  const buffer = Buffer.allocUnsafeSlow(job.bytesPerSecond > 0 ? 64 * 1024 : 1024 * 1024)
  const head = Buffer.from(`GET ${job.path} HTTP/1.1\r\nhost: mirror\r\n${job.fields.join("")}\r\n`)
  let bytes = 0

  const client = () =>
    new Promise<void>((resolve, reject) => {
      let requests = 0
      let left = -1
      let allowance = 0
      let timer: NodeJS.Timeout | undefined = undefined
      const ask = () => {
        left = -1
        socket.write(head)
      }
      const onBytes = (size: number): boolean => {
        let body = size
        if (left === -1) {
          const text = buffer.toString("latin1", 0, Math.min(size, 4096))
          const end = text.indexOf("\r\n\r\n")
          const length = /^content-length: (\d+)/im.exec(text)?.[1]
          if (!/^HTTP\/1\.1 20[06] /.test(text) || end === -1 || length === undefined) {
            reject(new Error(`answered ${text.slice(0, 300)}`))
            return false
          }
          left = Number(length)
          body = size - end - 4
        }
        left -= body
        bytes += body
        allowance -= body
        if (left === 0 && ++requests < job.requests) ask()
        else if (left === 0) {
          clearInterval(timer)
          resolve()
          socket.destroy()
          return false
        }
        return job.bytesPerSecond === 0 || allowance > 0
      }
      const socket: Socket = connect({
        host: job.host,
        port: job.port,
        noDelay: true,
        onread: { buffer, callback: onBytes }
      })
      if (job.bytesPerSecond > 0) {
        timer = setInterval(() => {
          allowance = Math.min(allowance, 0) + job.bytesPerSecond * tickMillis / 1000
          if (allowance > 0) socket.resume()
        }, tickMillis)
      }
      socket.on("connect", ask).on("error", reject)
      socket.on("close", () => reject(new Error(`the connection was closed with ${left} bytes of the body to come`)))
    })

  const begun = performance.now()
  await Promise.all(Array.from({ length: job.clients }, client))
  const { system, user } = process.cpuUsage()
  return { bytes, seconds: (performance.now() - begun) / 1000, cpuSeconds: (user + system) / 1e6 }
}

process.stdout.write(JSON.stringify(await run(JSON.parse(process.argv[2] ?? "") as Job)))
