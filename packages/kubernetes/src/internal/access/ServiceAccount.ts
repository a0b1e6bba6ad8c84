/** The service account of a pod: Kubernetes puts its token and the cluster's certificate into the pod's files. */
import { Effect } from "effect"
import { isIPv6 } from "node:net"
import type { ClusterAccess, ClusterAccessInvalid, Environment } from "../../ClusterAccess.ts"
import { invalid, read, serverOf } from "./AccessFiles.ts"

export const make = Effect.fnUntraced(function*(
  { KUBERNETES_SERVICE_HOST: host, KUBERNETES_SERVICE_PORT: port }: Environment,
  directory = "/var/run/secrets/kubernetes.io/serviceaccount"
): Effect.fn.Return<ClusterAccess, ClusterAccessInvalid> {
  if (host === undefined || port === undefined) {
    return yield* invalid("KUBERNETES_SERVICE_HOST is not set: outside a pod, a kubeconfig is needed")
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
