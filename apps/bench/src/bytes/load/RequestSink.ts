/**
 * Clients that ask for something small as often as they can, in a process of their own: on each connection one request
 * after another. Takes a `RequestJob` as its argument and prints a `RequestOutcome`.
 */
import { connect } from "node:net"

export interface RequestJob {
  readonly host: string
  readonly port: number
  readonly path: string
  readonly connections: number
  readonly seconds: number
}

export interface RequestOutcome {
  readonly requestsPerSecond: number
}

const run = async (job: RequestJob): Promise<RequestOutcome> => {
  const head = Buffer.from(`GET ${job.path} HTTP/1.1\r\nhost: mirror\r\n\r\n`)
  const until = performance.now() + job.seconds * 1000
  let requests = 0

  const connection = () =>
    new Promise<void>((resolve, reject) => {
      const buffer = Buffer.allocUnsafeSlow(64 * 1024)
      // All answers are as long as the first.
      let whole = 0
      let read = 0
      const socket = connect({
        host: job.host,
        port: job.port,
        noDelay: true,
        onread: {
          buffer,
          callback: (size) => {
            if (whole === 0) {
              const text = buffer.toString("latin1", 0, size)
              if (!text.startsWith("HTTP/1.1 200 ")) {
                reject(new Error(`answered ${text.slice(0, 300)}`))
                return false
              }
              whole = text.indexOf("\r\n\r\n") + 4 + Number(/^content-length: (\d+)/im.exec(text)?.[1])
            }
            read += size
            if (read < whole) return true
            read = 0
            requests++
            if (performance.now() < until) socket.write(head)
            else {
              resolve()
              socket.destroy()
            }
            return true
          }
        }
      })
      socket.on("connect", () => socket.write(head)).on("error", reject)
      socket.on("close", () => reject(new Error("the connection was closed")))
    })

  const begun = performance.now()
  await Promise.all(Array.from({ length: job.connections }, connection))
  return { requestsPerSecond: requests / ((performance.now() - begun) / 1000) }
}

process.stdout.write(JSON.stringify(await run(JSON.parse(process.argv[2] ?? "") as RequestJob)))
