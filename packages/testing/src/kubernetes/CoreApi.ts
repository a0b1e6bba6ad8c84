/** The part of a Kubernetes API that `ApiServer` delegates: who a token is, what a user may do, and empty lists. */
import { Effect } from "effect"
import { createServer, type IncomingMessage, type ServerResponse } from "node:http"
import { text } from "node:stream/consumers"
import { listen } from "../network/LocalServer.ts"

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

/** The answer to a TokenReview or a SubjectAccessReview. */
const review = (roles: Roles, body: string) => {
  const { apiVersion, kind, spec } = JSON.parse(body) as {
    readonly apiVersion: string
    readonly kind: string
    readonly spec: { token?: string; user?: string; resourceAttributes?: Attributes }
  }
  const { resourceAttributes, token = "", user = "" } = spec
  const known = token === "admin" || roles.has(token)
  const status = kind === "TokenReview"
    ? { authenticated: known, ...(known ? { user: { username: token } } : {}) }
    : { allowed: allows(roles, user, resourceAttributes) }
  return { apiVersion, kind, metadata: {}, spec: {}, status }
}

/** Starts it, and gives its port. It stops with the scope. */
export const start = Effect.fnUntraced(function*(roles: Roles) {
  const answer = async (request: IncomingMessage, response: ServerResponse) => {
    const send = (value: unknown) =>
      response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(value))
    if (request.method === "POST") return send(review(roles, await text(request)))
    if (request.url?.includes("watch=true")) return response.writeHead(200).flushHeaders()
    send({ apiVersion: "v1", kind: "List", metadata: { resourceVersion: "1" }, items: [] })
  }
  return yield* listen(createServer((request, response) => void answer(request, response)))
})
