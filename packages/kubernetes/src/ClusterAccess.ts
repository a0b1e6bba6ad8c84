/**
 * Where a Kubernetes API server is and how to be let in: from the service account of a pod, or from a kubeconfig. The files
 * of tokens and certificates are read again for each request, because they rotate.
 */
import { Data, Effect, Schema } from "effect"
import { readFile } from "node:fs/promises"
import { isIPv6 } from "node:net"
import { dirname, resolve } from "node:path"
import * as ExecCredential from "./ExecCredential.ts"

/** There is no way to the API server; `hint` says what to mend. */
export class ClusterAccessInvalid extends Data.TaggedError("ClusterAccessInvalid")<{ readonly hint: string }> {
  override get message() {
    return this.hint
  }
}

/** What a connection needs, in PEM. */
export interface TlsMaterial {
  readonly ca?: string | undefined
  readonly cert?: string | undefined
  readonly key?: string | undefined
  readonly servername?: string | undefined
  /** False only where a kubeconfig says `insecure-skip-tls-verify`. */
  readonly verify: boolean
}

export interface Credentials {
  readonly tls: TlsMaterial
  /** The header's value. */
  readonly authorization?: string | undefined
}

export interface ClusterAccess {
  readonly server: URL
  /** Read at the moment of use. */
  readonly credentials: Effect.Effect<Credentials, ClusterAccessInvalid>
}

const invalid = (hint: string) => new ClusterAccessInvalid({ hint })
const reasonOf = (cause: unknown) => cause instanceof Error ? cause.message : String(cause)

const read = (path: string, what: string) =>
  Effect.tryPromise({
    try: () => readFile(path, "utf8"),
    catch: (cause) => invalid(`${what} cannot be read: ${reasonOf(cause)}`)
  })

const serverOf = (text: string): Effect.Effect<URL, ClusterAccessInvalid> => {
  const url = URL.parse(text)
  return url !== null && /^https?:$/.test(url.protocol)
    ? Effect.succeed(url)
    : Effect.fail(invalid(`the server ${JSON.stringify(text)} is no http or https URL`))
}

/** The service account of this pod. */
export const inCluster = Effect.fnUntraced(function*(options: {
  readonly environment: ExecCredential.Environment
  readonly directory?: string | undefined
}): Effect.fn.Return<ClusterAccess, ClusterAccessInvalid> {
  const { directory = "/var/run/secrets/kubernetes.io/serviceaccount", environment } = options
  const { KUBERNETES_SERVICE_HOST: host, KUBERNETES_SERVICE_PORT: port } = environment
  if (host === undefined || port === undefined) {
    return yield* invalid("KUBERNETES_SERVICE_HOST is not set: outside of a pod, give --kubeconfig-path")
  }
  return {
    server: yield* serverOf(`https://${isIPv6(host) ? `[${host}]` : host}:${port}`),
    credentials: Effect.gen(function*() {
      const token = yield* read(`${directory}/token`, "the service account's token (automountServiceAccountToken)")
      const ca = yield* read(`${directory}/ca.crt`, "the cluster's certificate")
      return { tls: { ca, verify: true }, authorization: `Bearer ${token.trim()}` }
    })
  }
})

const text = Schema.optionalKey(Schema.NullOr(Schema.String))
const listOf = <S extends Schema.Top>(entry: S) => Schema.optionalKey(Schema.NullOr(Schema.Array(entry)))

const Cluster = Schema.Struct({
  server: Schema.String,
  "certificate-authority": text,
  "certificate-authority-data": text,
  "insecure-skip-tls-verify": Schema.optionalKey(Schema.NullOr(Schema.Boolean)),
  "tls-server-name": text,
  "proxy-url": text
})
const User = Schema.Struct({
  token: text,
  tokenFile: text,
  username: text,
  password: text,
  "client-certificate": text,
  "client-certificate-data": text,
  "client-key": text,
  "client-key-data": text,
  exec: Schema.optionalKey(Schema.NullOr(ExecCredential.Plugin)),
  "auth-provider": Schema.optionalKey(Schema.Unknown)
})
type User = typeof User.Type
const Kubeconfig = Schema.Struct({
  "current-context": text,
  clusters: listOf(Schema.Struct({ name: Schema.String, cluster: Cluster })),
  users: listOf(Schema.Struct({ name: Schema.String, user: Schema.optionalKey(Schema.NullOr(User)) })),
  contexts: listOf(Schema.Struct({
    name: Schema.String,
    context: Schema.Struct({ cluster: Schema.String, user: text })
  }))
})
const decodeKubeconfig = Schema.decodeUnknownEffect(Kubeconfig)

type Text = string | null | undefined

/** A value that is there in base64, or in a file; the inline one counts, as in client-go. */
const material = (data: Text, path: Text, directory: string, what: string) => {
  if (data) return Effect.succeed(Buffer.from(data, "base64").toString())
  return path ? read(resolve(directory, path), what) : Effect.succeed(undefined)
}

const authorizationOf = Effect.fnUntraced(function*(user: User, directory: string) {
  if (user.tokenFile) return `Bearer ${(yield* read(resolve(directory, user.tokenFile), "the token")).trim()}`
  if (user.token) return `Bearer ${user.token}`
  return user.username
    ? `Basic ${Buffer.from(`${user.username}:${user.password ?? ""}`).toString("base64")}`
    : undefined
})

/** The current context of a kubeconfig. */
export const fromKubeconfig = Effect.fnUntraced(function*(options: {
  readonly path: string
  readonly environment: ExecCredential.Environment
}): Effect.fn.Return<ClusterAccess, ClusterAccessInvalid> {
  const { environment, path } = options
  const directory = dirname(path)
  const wrong = (what: string) => invalid(`${path} ${what}; check --kubeconfig-path`)
  const written = yield* Effect.mapError(
    read(path, "the kubeconfig"),
    ({ hint }) => invalid(`${hint}; check --kubeconfig-path`)
  )
  // Only here: a pod needs no YAML.
  const { parse } = yield* Effect.promise(() => import("yaml"))
  const config = yield* Effect.try({ try: (): unknown => parse(written), catch: () => wrong("is no YAML") }).pipe(
    Effect.flatMap((value) => Effect.mapError(decodeKubeconfig(value), () => wrong("is no kubeconfig")))
  )
  const name = config["current-context"]
  const context = config.contexts?.find((context) => context.name === name)?.context
  if (context === undefined) {
    return yield* wrong(name ? `has no context ${JSON.stringify(name)}` : "names no current-context")
  }
  const cluster = config.clusters?.find(({ name }) => name === context.cluster)?.cluster
  if (cluster === undefined) return yield* wrong(`has no cluster ${JSON.stringify(context.cluster)}`)
  const listed = config.users?.find(({ name }) => name === context.user)
  if (context.user && listed === undefined) return yield* wrong(`has no user ${JSON.stringify(context.user)}`)
  const user = listed?.user ?? {}
  if (user["auth-provider"]) {
    return yield* wrong("has an auth-provider, which Kubernetes no longer has either; use exec")
  }
  if (cluster["proxy-url"]) return yield* wrong("has a proxy-url, which is not supported")

  const ca = material(
    cluster["certificate-authority-data"],
    cluster["certificate-authority"],
    directory,
    "the cluster's certificate"
  )
  const plugin = user.exec
    ? ExecCredential.make(user.exec, { environment, directory, cluster })
    : Effect.succeed(undefined)
  return {
    server: yield* Effect.mapError(serverOf(cluster.server), ({ hint }) => wrong(`is wrong: ${hint}`)),
    credentials: Effect.gen(function*() {
      const given = yield* Effect.mapError(plugin, ({ message }) => invalid(message))
      const cert = yield* material(
        user["client-certificate-data"],
        user["client-certificate"],
        directory,
        "the client certificate"
      )
      const key = yield* material(user["client-key-data"], user["client-key"], directory, "the client key")
      return {
        tls: {
          ca: yield* ca,
          cert: given?.clientCertificateData ?? cert,
          key: given?.clientKeyData ?? key,
          servername: cluster["tls-server-name"] ?? undefined,
          verify: cluster["insecure-skip-tls-verify"] !== true
        },
        authorization: given?.token ? `Bearer ${given.token}` : yield* authorizationOf(user, directory)
      }
    })
  }
})
