/**
 * A real Kubernetes API for tests, without a cluster: `apiextensions-apiserver` with etcd serves the Lease from a
 * CustomResourceDefinition, with the API machinery's optimistic concurrency, watches, bookmarks and 410. What it delegates
 * to a core API server, tokens and permissions, is answered by a stub, which judges by RBAC rules as Kubernetes does.
 */
import type { Environment } from "@spegel-ts/kubernetes/ClusterAccess"
import { Data, Effect, Schedule } from "effect"
import { type ChildProcess, execFile, spawn } from "node:child_process"
import { existsSync } from "node:fs"
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises"
import { createServer, type IncomingMessage, type ServerResponse } from "node:http"
import { request } from "node:https"
import { type AddressInfo, createServer as createTcpServer } from "node:net"
import { homedir, tmpdir } from "node:os"
import { join } from "node:path"
import * as Certificates from "./Certificates.ts"
import { inPath, lacking } from "./Prerequisite.ts"

const version = "v0.34.1"
const cache = join(homedir(), ".cache", "spegel-ts", `apiextensions-apiserver-${version}`)
const binary = join(cache, "apiextensions-apiserver")

/** The server could not be built, or did not come up. */
export class ApiServerFailed extends Data.TaggedError("ApiServerFailed")<{ readonly reason: string }> {
  override get message() {
    return this.reason
  }
}

/** What this machine lacks for it; undefined where nothing is. CI must lack nothing. */
export const missingPrerequisite = (environment: Environment): string | undefined => {
  if (!inPath("etcd", environment)) return lacking(environment, "needs etcd (Debian's etcd-server)")
  if (!existsSync(binary) && !inPath("go", environment)) {
    return lacking(environment, "needs go, to build k8s.io/apiextensions-apiserver")
  }
  return Certificates.missingPrerequisite(environment)
}

/** Builds the server where that was not done before, which takes minutes; kept in the user's cache. */
export const build = Effect.suspend(() =>
  existsSync(binary) ? Effect.void : Effect.callback<void, ApiServerFailed>((resume) => {
    // The user's Go settings and module cache count; only the result is elsewhere.
    const args = [`GOBIN=${cache}`, "go", "install", `k8s.io/apiextensions-apiserver@${version}`]
    const child = execFile(
      "env",
      args,
      {
        timeout: 900_000
      },
      (error, _, stderr) => resume(error === null ? Effect.void : Effect.fail(new ApiServerFailed({ reason: stderr })))
    )
    return Effect.sync(() => child.kill("SIGKILL"))
  })
)

/** A rule of a Role. */
export interface Rule {
  readonly verbs: ReadonlyArray<string>
  readonly resourceNames?: ReadonlyArray<string>
}

/** Rules on leases by user; everything is allowed to `admin`. The user of a token is the token itself. */
export type Roles = Map<string, ReadonlyArray<Rule>>

interface Attributes {
  readonly verb: string
  readonly resource: string
  readonly name?: string
}

const allows = (roles: Roles, user: string, attributes: Attributes | undefined) =>
  user === "admin" || user === "system:apiserver" || attributes === undefined ||
  (roles.get(user) ?? []).some(({ resourceNames, verbs }) =>
    verbs.includes(attributes.verb) && attributes.resource === "leases" &&
    (resourceNames === undefined || resourceNames.includes(attributes.name ?? ""))
  )

/** The core API server's part: token reviews, access reviews, and empty lists of what the machinery looks at. */
const stub = (roles: Roles) =>
  Effect.acquireRelease(
    Effect.callback<{ readonly port: number; readonly close: () => void }>((resume) => {
      const answer = async (request: IncomingMessage, response: ServerResponse) => {
        const send = (value: unknown) =>
          response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(value))
        const path = request.url ?? ""
        if (request.method === "POST") {
          const chunks: Array<Buffer> = []
          for await (const chunk of request) chunks.push(chunk as Buffer)
          const { apiVersion, kind, spec } = JSON.parse(Buffer.concat(chunks).toString()) as {
            readonly apiVersion: string
            readonly kind: string
            readonly spec: { token?: string; user?: string; resourceAttributes?: Attributes }
          }
          const { resourceAttributes, token = "", user = "" } = spec
          const known = token === "admin" || roles.has(token)
          const status = kind === "TokenReview"
            ? { authenticated: known, ...(known ? { user: { username: token } } : {}) }
            : { allowed: allows(roles, user, resourceAttributes) }
          return send({ apiVersion, kind, metadata: {}, spec: {}, status })
        }
        if (path.includes("watch=true")) return response.writeHead(200).flushHeaders()
        send({ apiVersion: "v1", kind: "List", metadata: { resourceVersion: "1" }, items: [] })
      }
      const server = createServer((request, response) => void answer(request, response))
      server.listen(0, "127.0.0.1", () =>
        resume(Effect.succeed({
          port: (server.address() as AddressInfo).port,
          close: () => {
            server.close()
            server.closeAllConnections()
          }
        })))
    }),
    ({ close }) => Effect.sync(close)
  )

const freePort = Effect.callback<number>((resume) => {
  const server = createTcpServer().listen(0, "127.0.0.1", () => {
    const { port } = server.address() as AddressInfo
    server.close(() => resume(Effect.succeed(port)))
  })
})

const launched = (program: string, args: ReadonlyArray<string>) =>
  Effect.acquireRelease(
    Effect.sync(() => spawn(program, args, { stdio: "ignore" })),
    (child) =>
      Effect.callback<void>((resume) => {
        if (child.exitCode !== null || child.signalCode !== null) return resume(Effect.void)
        child.once("exit", () => resume(Effect.void))
        child.kill("SIGKILL")
      })
  )

const kubeconfigOf = (options: { readonly server: string; readonly ca?: string; readonly token: string }) =>
  JSON.stringify({
    apiVersion: "v1",
    kind: "Config",
    "current-context": "test",
    contexts: [{ name: "test", context: { cluster: "test", user: "test" } }],
    clusters: [{
      name: "test",
      cluster: {
        server: options.server,
        ...(options.ca === undefined ? {} : { "certificate-authority": options.ca })
      }
    }],
    users: [{ name: "test", user: { token: options.token } }]
  })

const string = { type: "string" }
const time = { type: "string", format: "date-time" }
const integer = { type: "integer", format: "int32" }
const definition = {
  apiVersion: "apiextensions.k8s.io/v1",
  kind: "CustomResourceDefinition",
  metadata: {
    name: "leases.coordination.k8s.io",
    annotations: { "api-approved.kubernetes.io": "https://kubernetes.io/docs/concepts/architecture/leases/" }
  },
  spec: {
    group: "coordination.k8s.io",
    scope: "Namespaced",
    names: { plural: "leases", singular: "lease", kind: "Lease", listKind: "LeaseList" },
    versions: [{
      name: "v1",
      served: true,
      storage: true,
      schema: {
        openAPIV3Schema: {
          type: "object",
          properties: {
            spec: {
              type: "object",
              properties: {
                holderIdentity: string,
                leaseDurationSeconds: integer,
                acquireTime: time,
                renewTime: time,
                leaseTransitions: integer
              }
            }
          }
        }
      }
    }]
  }
}

/** A running server, gone with the scope. `roles` may be changed while it runs. */
export const start = Effect.gen(function*() {
  yield* build
  const directory = yield* Effect.acquireRelease(
    Effect.promise(() => mkdtemp(join(tmpdir(), "spegel-lease-"))),
    (directory) => Effect.promise(() => rm(directory, { recursive: true, force: true, maxRetries: 5 }))
  )
  const roles: Roles = new Map()
  const core = yield* stub(roles)
  const [client, peer, port] = yield* Effect.all([freePort, freePort, freePort])
  const etcd = `http://127.0.0.1:${client}`
  const certs = join(directory, "certs")
  const corePath = join(directory, "core.json")
  yield* Effect.promise(async () => {
    await mkdir(certs)
    await writeFile(corePath, kubeconfigOf({ server: `http://127.0.0.1:${core.port}`, token: "core" }))
  })
  const clients = yield* Certificates.authority(directory)
  yield* launched("etcd", [
    "--data-dir",
    join(directory, "etcd"),
    "--unsafe-no-fsync",
    "--log-level",
    "error",
    "--listen-client-urls",
    etcd,
    "--advertise-client-urls",
    etcd,
    "--listen-peer-urls",
    `http://127.0.0.1:${peer}`,
    "--initial-advertise-peer-urls",
    `http://127.0.0.1:${peer}`,
    "--initial-cluster",
    `default=http://127.0.0.1:${peer}`
  ])
  const server: ChildProcess = yield* launched(binary, [
    `--etcd-servers=${etcd}`,
    `--secure-port=${port}`,
    "--bind-address=127.0.0.1",
    `--cert-dir=${certs}`,
    `--kubeconfig=${corePath}`,
    `--authentication-kubeconfig=${corePath}`,
    `--authorization-kubeconfig=${corePath}`,
    "--authentication-skip-lookup",
    `--client-ca-file=${clients.ca}`,
    // Permissions and tokens change in tests.
    "--authentication-token-webhook-cache-ttl=1ms",
    "--authorization-webhook-cache-authorized-ttl=1ms",
    "--authorization-webhook-cache-unauthorized-ttl=1ms",
    "--disable-admission-plugins=NamespaceLifecycle,MutatingAdmissionWebhook,ValidatingAdmissionWebhook," +
    "MutatingAdmissionPolicy,ValidatingAdmissionPolicy",
    "--enable-priority-and-fairness=false"
  ])
  const caPath = join(certs, "apiserver.crt")
  const url = `https://127.0.0.1:${port}`

  /** As admin, for what tests look at and change. */
  const call = (method: string, path: string, body?: unknown) =>
    Effect.tryPromise({
      try: async () => {
        const ca = await readFile(caPath)
        return await new Promise<{ readonly status: number; readonly json: unknown }>((resolve, reject) => {
          const sent = request(new URL(path, url), {
            method,
            ca,
            agent: false,
            timeout: 10_000,
            headers: { authorization: "Bearer admin", "content-type": "application/json" }
          }, (response) => {
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
  const eventually = (method: string, path: string, body?: unknown) =>
    call(method, path, body).pipe(
      Effect.filterOrFail(
        ({ status }) => status < 300 || status === 409,
        ({ json, status }) => new ApiServerFailed({ reason: `${path}: ${status} ${JSON.stringify(json)}` })
      ),
      Effect.retry({ schedule: Schedule.spaced("100 millis"), times: 600 })
    )
  yield* eventually("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition)
  yield* eventually("GET", "/apis/coordination.k8s.io/v1/namespaces/spegel/leases")

  let files = 0
  return {
    url,
    caPath,
    roles,
    call,
    /** Files of a client certificate, by which the server knows the user of that name. */
    clientCertificate: clients.certificate,
    /** Writes a kubeconfig of the user `token`; `via` is a proxy in front of the server. */
    kubeconfig: (token: string, via?: string) =>
      Effect.promise(async () => {
        const path = join(directory, `kubeconfig-${files++}`)
        await writeFile(
          path,
          kubeconfigOf(via === undefined ? { server: url, ca: caPath, token } : { server: via, token })
        )
        return path
      }),
    /** Freezes the server (requests hang) and lets it go on. */
    freeze: Effect.sync(() => server.kill("SIGSTOP")),
    thaw: Effect.sync(() => server.kill("SIGCONT"))
  }
})

export type ApiServer = Effect.Success<typeof start>
