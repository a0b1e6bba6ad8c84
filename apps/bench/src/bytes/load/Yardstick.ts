/** A server of a few lines of node:http, as a yardstick: `serve`, `relay` or `manifest`. */
import { createReadStream } from "node:fs"
import { stat } from "node:fs/promises"
import { Agent, createServer, request, type RequestListener } from "node:http"

const [, , kind = "", host = "", port = "", source = ""] = process.argv
const agent = new Agent({ keepAlive: true })

/** Serves the files of the directory `source`. */
const serve: RequestListener = (incoming, response) => {
  const path = `${source}${incoming.url?.split("?")[0]}`
  stat(path).then(({ size }) => {
    response.writeHead(200, { "content-length": size })
    createReadStream(path).pipe(response)
  }, () => response.writeHead(404, { "content-length": 0 }).end())
}

/** Relays the server at the URL `source`. */
const relay: RequestListener = (incoming, response) => {
  request(`${source}${incoming.url}`, { agent, headers: incoming.headers }, (answer) => {
    response.writeHead(answer.statusCode ?? 502, answer.headers)
    answer.pipe(response)
  }).on("error", () => response.destroy()).end()
}

/** Answers everything with the same bytes and the headers of a manifest. */
const manifest: RequestListener = (_incoming, response) => {
  response.writeHead(200, {
    "content-type": "application/vnd.oci.image.manifest.v1+json",
    "docker-content-digest": `sha256:${"0".repeat(64)}`,
    "content-length": body.length
  }).end(body)
}
const body = Buffer.alloc(Number(source) || 0, "m")

createServer({ noDelay: true, keepAliveTimeout: 65_000 }, { serve, relay, manifest }[kind])
  .listen(Number(port), host)
