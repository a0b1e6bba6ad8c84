/**
 * The address of a Kubernetes API server and the credentials for it, from the service account of a pod or from a kubeconfig.
 * Files of tokens and certificates are read again for each request, because they rotate.
 *
 * The kubeconfig itself is read once. Both ways are loaded when they are used: a pod needs no YAML.
 */
import { Data, Effect, Option } from "effect"

/** Variables of the environment. Applications read them, libraries are given them. */
export type Environment = Readonly<Record<string, string | undefined>>

/** The API server is not known, or the credentials for it cannot be read now. `hint` says what to fix. */
export class ClusterAccessInvalid extends Data.TaggedError("ClusterAccessInvalid")<{ readonly hint: string }> {
  override get message() {
    return this.hint
  }
}

/** Certificates and settings of a TLS connection; texts are PEM. */
export interface TlsMaterial {
  /** Authorities that sign the server's certificate; Node's own if it is absent. */
  readonly ca?: string | undefined
  /** The client's certificate, with its chain. */
  readonly cert?: string | undefined
  /** The key of `cert`. */
  readonly key?: string | undefined
  /** The name that the server's certificate must have, if that is not its host. */
  readonly servername?: string | undefined
  /** False only if a kubeconfig says `insecure-skip-tls-verify`. */
  readonly verify: boolean
}

/** The credentials of one request. */
export interface Credentials {
  readonly tls: TlsMaterial
  /** Value of the `authorization` header. */
  readonly authorization?: string | undefined
}

/** The address of one API server, and the credentials for it. */
export interface ClusterAccess {
  /** An http or https URL; its path is a prefix of all requests. */
  readonly server: URL
  /** To be read for each request. It may run a credential plugin, which has 20 seconds. */
  readonly credentials: Effect.Effect<Credentials, ClusterAccessInvalid>
}

/** The choice between a kubeconfig and the service account. */
export interface AccessOptions {
  /** Path of a kubeconfig, whose current context counts; none for the service account of this pod. */
  readonly kubeconfig: Option.Option<string>
  /** Names the API server of a pod's cluster, and is passed on to credential plugins. */
  readonly environment: Environment
  /** Directory of the service account's files, if it is not `/var/run/secrets/kubernetes.io/serviceaccount`. */
  readonly serviceAccount?: string | undefined
}

/**
 * Finds the API server and its credentials. Fails if the kubeconfig is absent or wrong, or this is not a pod; a later try may
 * succeed.
 */
export const make = Effect.fnUntraced(function*(
  { environment, kubeconfig, serviceAccount }: AccessOptions
): Effect.fn.Return<ClusterAccess, ClusterAccessInvalid> {
  if (Option.isNone(kubeconfig)) {
    const ServiceAccount = yield* Effect.promise(() => import("./internal/access/ServiceAccount.ts"))
    return yield* ServiceAccount.make(environment, serviceAccount)
  }
  const Kubeconfig = yield* Effect.promise(() => import("./internal/access/Kubeconfig.ts"))
  return yield* Kubeconfig.read(kubeconfig.value, environment)
})
