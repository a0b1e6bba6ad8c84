/**
 * A real Kubernetes API for tests, without a cluster: `apiextensions-apiserver` with etcd serves the Lease from a
 * CustomResourceDefinition, with the API machinery's optimistic concurrency, watches, bookmarks and 410. What it delegates
 * to a core API server, tokens and permissions, is answered by a stub, which judges by RBAC rules as Kubernetes does.
 */
import type { Environment } from "@spegel-ts/kubernetes/ClusterAccess"
import { Data, Effect, Schedule } from "effect"
import { existsSync } from "node:fs"
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises"
import { request } from "node:https"
import { homedir, tmpdir } from "node:os"
import { join } from "node:path"
import { freePort } from "../network/FreePort.ts"
import * as Command from "../process/Command.ts"
import * as Subprocess from "../process/Subprocess.ts"
import * as Certificates from "./Certificates.ts"
import * as CoreApi from "./CoreApi.ts"
import * as Kubeconfig from "./Kubeconfig.ts"
import { leaseDefinition } from "./LeaseDefinition.ts"
import { inPath, lacking } from "./Prerequisite.ts"

const version = "v0.34.1"
const cache = join(homedir(), ".cache", "spegel-ts", `apiextensions-apiserver-${version}`)
const binary = join(cache, "apiextensions-apiserver")

/** The server did not come up, or a request as admin failed. */
export class ApiServerFailed extends Data.TaggedError("ApiServerFailed")<{ readonly reason: string }> {
  override get message() {
    return this.reason
  }
}

/** The prerequisite that this machine lacks; undefined if it has all of them. Throws in CI. */
export const missingPrerequisite = (environment: Environment): string | undefined => {
  if (!inPath("etcd", environment)) return lacking(environment, "needs etcd (Debian's etcd-server)")
  if (!existsSync(binary) && !inPath("go", environment)) {
    return lacking(environment, "needs go, to build k8s.io/apiextensions-apiserver")
  }
  return Certificates.missingPrerequisite(environment)
}

/** Builds the server, which takes minutes, unless the user's cache has it. */
export const build = Effect.suspend(() => {
  if (existsSync(binary)) return Effect.void
  // Only the result has a place of its own; settings and module cache are the user's.
  const args = [`GOBIN=${cache}`, "go", "install", `k8s.io/apiextensions-apiserver@${version}`]
  return Effect.timeout(Command.run("env", args), "15 minutes")
})

const quiet = { stdio: "ignore" } as const

/** Starts etcd on two free ports, and gives its URL. */
const startEtcd = Effect.fnUntraced(function*(directory: string) {
  const [client, peer] = yield* Effect.all([freePort, freePort])
  const [clientUrl, peerUrl] = [`http://127.0.0.1:${client}`, `http://127.0.0.1:${peer}`]
  yield* Subprocess.start("etcd", [
    `--data-dir=${directory}`,
    "--unsafe-no-fsync",
    "--log-level=error",
    `--listen-client-urls=${clientUrl}`,
    `--advertise-client-urls=${clientUrl}`,
    `--listen-peer-urls=${peerUrl}`,
    `--initial-advertise-peer-urls=${peerUrl}`,
    `--initial-cluster=default=${peerUrl}`
  ], quiet)
  return clientUrl
})

const startServer = (options: {
  readonly etcd: string
  readonly port: number
  /** Directory in which it puts its certificate. */
  readonly certificates: string
  /** Kubeconfig of the server that it delegates to. */
  readonly core: string
  /** Authority of clients' certificates. */
  readonly clients: string
}) =>
  Subprocess.start(binary, [
    `--etcd-servers=${options.etcd}`,
    `--secure-port=${options.port}`,
    "--bind-address=127.0.0.1",
    `--cert-dir=${options.certificates}`,
    `--kubeconfig=${options.core}`,
    `--authentication-kubeconfig=${options.core}`,
    `--authorization-kubeconfig=${options.core}`,
    "--authentication-skip-lookup",
    `--client-ca-file=${options.clients}`,
    // Permissions and tokens change in tests.
    "--authentication-token-webhook-cache-ttl=1ms",
    "--authorization-webhook-cache-authorized-ttl=1ms",
    "--authorization-webhook-cache-unauthorized-ttl=1ms",
    "--disable-admission-plugins=NamespaceLifecycle,MutatingAdmissionWebhook,ValidatingAdmissionWebhook," +
    "MutatingAdmissionPolicy,ValidatingAdmissionPolicy",
    "--enable-priority-and-fairness=false"
  ], quiet)

/** Sends requests as admin. The certificate at `caPath` exists once the server is up. */
const adminOf = (url: string, caPath: string) => (method: string, path: string, body?: unknown) =>
  Effect.tryPromise({
    try: async () => {
      const ca = await readFile(caPath)
      return await new Promise<{ readonly status: number; readonly json: unknown }>((resolve, reject) => {
        const headers = { authorization: "Bearer admin", "content-type": "application/json" }
        const options = { method, ca, agent: false, timeout: 10_000, headers }
        const sent = request(new URL(path, url), options, (response) => {
          const chunks: Array<Buffer> = []
          response.on("data", (chunk: Buffer) => chunks.push(chunk))
          response.on("end", () => {
            const text = Buffer.concat(chunks).toString()
            resolve({ status: response.statusCode ?? 0, json: text.startsWith("{") ? JSON.parse(text) : text })
          })
        })
        sent.on("error", reject)
        sent.end(body === undefined ? undefined : JSON.stringify(body))
      })
    },
    catch: (cause) => new ApiServerFailed({ reason: String(cause) })
  })

/** Waits until the server serves Leases. */
const untilReady = Effect.fnUntraced(function*(admin: ReturnType<typeof adminOf>) {
  const eventually = (method: string, path: string, body?: unknown) =>
    admin(method, path, body).pipe(
      Effect.filterOrFail(
        ({ status }) => status < 300 || status === 409,
        ({ json, status }) => new ApiServerFailed({ reason: `${path}: ${status} ${JSON.stringify(json)}` })
      ),
      Effect.retry({ schedule: Schedule.spaced("100 millis"), times: 600 })
    )
  yield* eventually("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", leaseDefinition)
  yield* eventually("GET", "/apis/coordination.k8s.io/v1/namespaces/spegel/leases")
})

/** Starts a server, which is killed with the scope. `roles` may be changed while it runs. */
export const start = Effect.gen(function*() {
  yield* build
  const directory = yield* Effect.acquireRelease(
    Effect.promise(() => mkdtemp(join(tmpdir(), "spegel-lease-"))),
    (directory) => Effect.promise(() => rm(directory, { recursive: true, force: true, maxRetries: 5 }))
  )
  const certificates = join(directory, "certs")
  yield* Effect.promise(() => mkdir(certificates))
  const write = (name: string, text: string) => {
    const path = join(directory, name)
    return Effect.as(Effect.promise(() => writeFile(path, text)), path)
  }

  const roles: CoreApi.Roles = new Map()
  const corePort = yield* CoreApi.start(roles)
  const core = yield* write("core.json", Kubeconfig.print({ server: `http://127.0.0.1:${corePort}`, token: "core" }))
  const clients = yield* Certificates.authority(directory)
  const etcd = yield* startEtcd(join(directory, "etcd"))
  const port = yield* freePort
  const server = yield* startServer({ etcd, port, certificates, core, clients: clients.ca })
  const caPath = join(certificates, "apiserver.crt")
  const url = `https://127.0.0.1:${port}`
  const call = adminOf(url, caPath)
  yield* untilReady(call)

  let files = 0
  return {
    url,
    /** Authority of the server's certificate. */
    caPath,
    roles,
    call,
    /** Files of a client certificate, by which the server knows the user of that name. */
    clientCertificate: clients.certificate,
    /** Writes a kubeconfig of the user `token`; `via` is a proxy in front of the server. */
    kubeconfig: (token: string, via?: string) =>
      write(
        `kubeconfig-${files++}`,
        Kubeconfig.print(via === undefined ? { server: url, ca: caPath, token } : { server: via, token })
      ),
    /** Freezes the server: requests hang until it is thawed. */
    freeze: Effect.sync(() => server.kill("SIGSTOP")),
    thaw: Effect.sync(() => server.kill("SIGCONT"))
  }
})

export type ApiServer = Effect.Success<typeof start>
