/**
 * A kubeconfig: its current context, with tokens, client certificates, basic authentication and credential plugins. Names of
 * files in it are relative to its own directory. An `auth-provider` and a `proxy-url` are refused rather than ignored.
 */
import { Effect, Schema } from "effect"
import { dirname, resolve } from "node:path"
import { parse } from "yaml"
import type { ClusterAccess, ClusterAccessInvalid, Environment } from "../../ClusterAccess.ts"
import * as AccessFiles from "./AccessFiles.ts"
import * as ExecCredential from "./ExecCredential.ts"

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

type Kubeconfig = typeof Kubeconfig.Type
type Text = string | null | undefined

/** A value that is there in base64, or in a file; the inline one counts, as in client-go. */
const material = (data: Text, path: Text, directory: string, what: string) => {
  if (data) return Effect.succeed(Buffer.from(data, "base64").toString())
  return path ? AccessFiles.read(resolve(directory, path), what) : Effect.succeed(undefined)
}

const authorizationOf = Effect.fnUntraced(function*(user: User, directory: string) {
  if (user.tokenFile) {
    return `Bearer ${(yield* AccessFiles.read(resolve(directory, user.tokenFile), "the token")).trim()}`
  }
  if (user.token) return `Bearer ${user.token}`
  return user.username
    ? `Basic ${Buffer.from(`${user.username}:${user.password ?? ""}`).toString("base64")}`
    : undefined
})

const advice = "check the kubeconfig and its path"

/** The cluster and the user of the current context. */
const contextOf = Effect.fnUntraced(function*(config: Kubeconfig, wrong: (what: string) => ClusterAccessInvalid) {
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
  if (user["auth-provider"]) return yield* wrong("has an auth-provider, which is not supported; use exec")
  if (cluster["proxy-url"]) return yield* wrong("has a proxy-url, which is not supported")
  return { cluster, user }
})

const credentialsOf = (
  { cluster, user }: Effect.Success<ReturnType<typeof contextOf>>,
  directory: string,
  environment: Environment
): ClusterAccess["credentials"] => {
  const plugin = user.exec
    ? ExecCredential.make(user.exec, { environment, directory, cluster })
    : Effect.succeed(undefined)
  return Effect.gen(function*() {
    const given = yield* Effect.mapError(plugin, ({ message }) => AccessFiles.invalid(message))
    const read = (data: Text, path: Text, what: string) => material(data, path, directory, what)
    const cert = yield* read(user["client-certificate-data"], user["client-certificate"], "the client certificate")
    const key = yield* read(user["client-key-data"], user["client-key"], "the client key")
    const ca = yield* read(
      cluster["certificate-authority-data"],
      cluster["certificate-authority"],
      "the cluster's certificate"
    )
    return {
      tls: {
        ca,
        cert: given?.clientCertificateData ?? cert,
        key: given?.clientKeyData ?? key,
        servername: cluster["tls-server-name"] ?? undefined,
        verify: cluster["insecure-skip-tls-verify"] !== true
      },
      authorization: given?.token ? `Bearer ${given.token}` : yield* authorizationOf(user, directory)
    }
  })
}

/** Reads the kubeconfig at `path`. */
export const read = Effect.fnUntraced(function*(
  path: string,
  environment: Environment
): Effect.fn.Return<ClusterAccess, ClusterAccessInvalid> {
  const wrong = (what: string) => AccessFiles.invalid(`${path} ${what}; ${advice}`)
  const written = yield* Effect.mapError(
    AccessFiles.read(path, "the kubeconfig"),
    ({ hint }) => AccessFiles.invalid(`${hint}; ${advice}`)
  )
  const value = yield* Effect.try({ try: (): unknown => parse(written), catch: () => wrong("is not YAML") })
  const config = yield* Effect.mapError(decodeKubeconfig(value), () => wrong("is not a kubeconfig"))
  const context = yield* contextOf(config, wrong)
  return {
    server: yield* Effect.mapError(
      AccessFiles.serverOf(context.cluster.server),
      ({ hint }) => wrong(`is wrong: ${hint}`)
    ),
    credentials: credentialsOf(context, dirname(path), environment)
  }
})
