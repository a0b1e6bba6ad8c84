/** The servers that are measured, each a process of its own. */
import { existsSync } from "node:fs"
import { mkdir, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import * as Image from "../../Image.ts"
import * as Content from "./Content.ts"
import type { Host } from "./Network.ts"
import * as Processes from "./Processes.ts"

const yardstick = fileURLToPath(new URL("Yardstick.ts", import.meta.url))

/** The address of a server. */
export interface Address {
  readonly host: string
  readonly port: number
  /** The command that runs another one on the server's host; undefined for this process' own host. */
  readonly enter?: ReadonlyArray<string>
}

/** The address of server `number` on a host. */
export const at = ({ address, enter }: Host, number: number, port: number): Address => ({
  host: address(number),
  port,
  enter
})

export type Plane = "zero-copy" | "portable"

/** The path of nginx, if it is installed (Debian package nginx-light or nginx). */
export const nginxPath: string | undefined = [...(process.env["PATH"] ?? "").split(":"), "/usr/sbin"]
  .map((path) => join(path, "nginx")).find((path) => existsSync(path))

const startNginx = async (directory: string, address: Address, location: string, http = "") => {
  if (nginxPath === undefined) throw new Error("nginx is not installed")
  const home = join(directory, `nginx-${address.host}-${address.port}`)
  await mkdir(home, { recursive: true })
  await writeFile(
    join(home, "nginx.conf"),
    `daemon off; master_process off; pid ${home}/pid; error_log stderr crit;
events { worker_connections 1024; }
http {
  access_log off; sendfile on; keepalive_requests 1000000; keepalive_timeout 65s;
  client_body_temp_path ${home}/body; proxy_temp_path ${home}/proxy; fastcgi_temp_path ${home}/fastcgi;
  uwsgi_temp_path ${home}/uwsgi; scgi_temp_path ${home}/scgi;
  ${http}
  server { listen ${address.host}:${address.port}; location / { ${location} } }
}
`
  )
  return Processes.start([nginxPath, "-p", home, "-c", join(home, "nginx.conf")], address)
}

/** nginx that serves the files by sendfile. */
export const nginxFiles = (directory: string, address: Address) =>
  startNginx(directory, address, `root ${Content.files(directory)};`)

/** nginx as a buffering proxy that never writes to disk. */
export const nginxProxy = (directory: string, address: Address, upstream: Address) =>
  startNginx(
    directory,
    address,
    `proxy_pass http://peer; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffers 16 64k; proxy_buffer_size 16k; proxy_busy_buffers_size 256k; proxy_max_temp_file_size 0;`,
    `upstream peer { server ${upstream.host}:${upstream.port}; keepalive 64; }`
  )

/** A few lines of node:http. */
export const node = (kind: "serve" | "relay" | "manifest", address: Address, source: string) =>
  Processes.start([process.execPath, yardstick, kind, address.host, String(address.port), source], address)

/** Flags of a daemon whose lookups are not measured: on a busy machine they may take longer. */
export const patient = ["--mirror-resolve-timeout=2s"]

/** The bundled daemon, as the image runs it; `npm run bundle` makes it. */
export const spegel = async (
  directory: string,
  address: Address,
  options: {
    /** The directory of an OCI layout in `directory`, or the flags of another store. */
    readonly store: "layout" | "empty" | ReadonlyArray<string>
    /** The host on which peers reach the router. Default: that of `address`. */
    readonly routerHost?: string
    readonly bootstrap?: Address
    /** The data plane. Default: the daemon chooses. */
    readonly plane?: Plane
    readonly flags?: ReadonlyArray<string>
    readonly environment?: Readonly<Record<string, string>>
  }
) => {
  if (!existsSync(Image.bundle)) throw new Error("there is no bundle: run npm run bundle before")
  const { host, port } = address
  const router = options.routerHost ?? host
  const environment = { ...Image.compiledIn(directory), ...options.environment }
  return Processes.start(
    [
      process.execPath,
      ...Image.flags,
      Image.bundle,
      "registry",
      ...(typeof options.store === "string"
        ? [`--store=oci-layout:${join(directory, options.store)}`]
        : options.store),
      `--registry-addr=${host}:${port}`,
      `--router-addr=${router}:${port + 1}`,
      `--metrics-addr=${host}:${port + 2}`,
      `--data-dir=${join(directory, `data-${host}`)}`,
      "--log-level=ERROR",
      ...(options.plane === undefined ? [] : [`--data-plane=${options.plane}`]),
      ...(options.flags ?? []),
      ...(options.bootstrap === undefined
        ? []
        : [
          "--bootstrap-kind=static",
          `--static-bootstrap-peers=${options.bootstrap.host}:${options.bootstrap.port + 1}`
        ])
    ],
    address,
    environment
  )
}
