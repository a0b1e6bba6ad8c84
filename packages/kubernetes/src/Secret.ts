/**
 * Secrets, as far as a program needs them that keeps one value there: reads it, creates it and deletes it, and never changes it.
 */
import { Data, Duration, Effect, Option, Schema } from "effect"
import { type ApiClient, type ApiRequest, unexpected } from "./ApiClient.ts"

/** The API server gave no answer, or refused. `reason` has its words, and no value of the Secret. A later try may succeed. */
export class SecretUnavailable extends Data.TaggedError("SecretUnavailable")<{
  readonly name: string
  readonly reason: string
}> {
  override get message() {
    return `the Secret ${this.name}: ${this.reason}`
  }
}

/** Names a Secret. */
export interface SecretName {
  readonly namespace: string
  readonly name: string
}

/** A Secret to create. */
export interface NewSecret extends SecretName {
  readonly labels: Readonly<Record<string, string>>
  /** Its values as texts, by their keys. */
  readonly values: Readonly<Record<string, string>>
}

const deadline = Duration.seconds(10)

const Stored = Schema.fromJsonString(Schema.Struct({
  data: Schema.optionalKey(Schema.NullOr(Schema.Record(Schema.String, Schema.String)))
}))
const Status = Schema.fromJsonString(Schema.Struct({ message: Schema.String }))

const base64 = (text: string) => Buffer.from(text).toString("base64")

const listOf = ({ namespace }: SecretName) => `/api/v1/namespaces/${encodeURIComponent(namespace)}/secrets`
const pathOf = (name: SecretName) => `${listOf(name)}/${encodeURIComponent(name.name)}`
const describe = ({ name, namespace }: SecretName) => `${namespace}/${name}`

/** What an answer says for people. An admission webhook may quote what it refuses, so values are taken out. */
const wordsOf = (body: string, hidden: ReadonlyArray<string>) => {
  const words = Option.match(Schema.decodeOption(Status)(body), {
    onNone: () => body,
    onSome: ({ message }) => message
  })
  return hidden.reduce((text, value) => text.replaceAll(value, "..."), words)
}

/** Sends a request, and fails unless its answer has one of the statuses. */
const send = Effect.fnUntraced(function*(client: ApiClient, name: SecretName, request: ApiRequest, options: {
  readonly expected: ReadonlyArray<number>
  readonly hidden?: ReadonlyArray<string>
}) {
  const unavailable = (reason: string) => new SecretUnavailable({ name: describe(name), reason })
  const answer = yield* Effect.mapError(client.request(request, deadline), ({ message }) => unavailable(message))
  if (options.expected.includes(answer.status)) return answer
  const body = wordsOf(answer.body, options.hidden ?? [])
  return yield* unavailable(unexpected({ status: answer.status, body }, request.method))
})

/** The values of a Secret as texts; none if there is no such Secret. */
export const read = Effect.fn("Secret.read")(function*(
  client: ApiClient,
  name: SecretName
): Effect.fn.Return<Option.Option<Readonly<Record<string, string>>>, SecretUnavailable> {
  const { body, status } = yield* send(client, name, { method: "GET", path: pathOf(name) }, { expected: [200, 404] })
  if (status === 404) return Option.none()
  // The error of the schema would quote the values.
  const { data } = yield* Effect.mapError(
    Schema.decodeEffect(Stored)(body),
    () => new SecretUnavailable({ name: describe(name), reason: "the API server's answer is not a Secret" })
  )
  const texts = Object.entries(data ?? {}).map(([key, value]) => [key, Buffer.from(value, "base64").toString()])
  return Option.some(Object.fromEntries(texts) as Readonly<Record<string, string>>)
})

/** Creates a Secret. False if somebody else has made one of that name; it stays as it is. */
export const create = Effect.fn("Secret.create")(function*(
  client: ApiClient,
  secret: NewSecret
): Effect.fn.Return<boolean, SecretUnavailable> {
  const { labels, name, namespace, values } = secret
  const data = Object.fromEntries(Object.entries(values).map(([key, text]) => [key, base64(text)]))
  const body = { apiVersion: "v1", kind: "Secret", type: "Opaque", metadata: { name, namespace, labels }, data }
  const hidden = Object.values(values).flatMap((text) => [base64(text), text, text.trim()])
  const { status } = yield* send(client, secret, { method: "POST", path: listOf(secret), body }, {
    expected: [201, 409],
    hidden: hidden.filter((value) => value !== "")
  })
  return status === 201
})

/** Deletes a Secret. False if it was not there. */
export const remove = Effect.fn("Secret.remove")(function*(
  client: ApiClient,
  name: SecretName
): Effect.fn.Return<boolean, SecretUnavailable> {
  const { status } = yield* send(client, name, { method: "DELETE", path: pathOf(name) }, { expected: [200, 202, 404] })
  return status !== 404
})
