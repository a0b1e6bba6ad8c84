/**
 * Requests of the OCI distribution API (specification 1.1), read once into one value per endpoint. The `end-N` numbers
 * are those of the specification's endpoint table.
 */
import { Data, Option, Result } from "effect"
import * as Digest from "./Digest.ts"
import * as DistributionError from "./DistributionError.ts"
import { isRegistry, isRepository, isTag } from "./Grammar.ts"

/** The last part of a manifest's path. */
export type ManifestReference = Data.TaggedEnum<{
  Tag: { readonly tag: string }
  Digest: { readonly digest: Digest.Digest }
}>
export const ManifestReference = Data.taggedEnum<ManifestReference>()

interface Content {
  readonly method: "GET" | "HEAD"
  readonly repository: string
  /** Registry host of `?ns=`, which containerd sends to every mirror. */
  readonly namespace: Option.Option<string>
  /** Whether a peer asks (`X-Spegel-Mirrored: true`). It is answered from local content only. */
  readonly mirrored: boolean
  /** The `Range` header of a GET as it came; other methods have no ranges (RFC 9110, section 14.2). */
  readonly range: string | undefined
}

/** One request of the API, by its endpoint. */
export type DistributionRequest = Data.TaggedEnum<{
  /** end-1: `GET /v2/` */
  Ping: { readonly method: "GET" | "HEAD" }
  /** end-2: `GET|HEAD /v2/<name>/blobs/<digest>` */
  Blob: Content & { readonly digest: Digest.Digest }
  /** end-3: `GET|HEAD /v2/<name>/manifests/<reference>` */
  Manifest: Content & { readonly reference: ManifestReference }
  /** end-8a, end-8b: `GET /v2/<name>/tags/list?n=<integer>&last=<tag>` */
  TagsList: {
    readonly method: "GET" | "HEAD"
    readonly repository: string
    readonly namespace: Option.Option<string>
    readonly n: Option.Option<number>
    readonly last: Option.Option<string>
  }
  /** end-12a: `GET /v2/<name>/referrers/<digest>` */
  Referrers: {
    readonly method: "GET" | "HEAD"
    readonly repository: string
    readonly namespace: Option.Option<string>
    readonly digest: Digest.Digest
  }
}>
export const DistributionRequest = Data.taggedEnum<DistributionRequest>()

/** An HTTP request as far as the API looks at it. Header names are lower case, `url` is the request target. */
export interface HttpRequest {
  readonly method: string
  readonly url: string
  readonly headers: Readonly<Record<string, string | ReadonlyArray<string> | undefined>>
}

/** A mirror sends this header when it asks a peer. */
export const mirroredHeader = "x-spegel-mirrored"

/** Longer than any legal request: 255 characters of name, a sha512 digest and a query. */
const maxUrlLength = 8192

type Parsed = Result.Result<DistributionRequest, DistributionError.DistributionError>

const headerValue = (value: string | ReadonlyArray<string> | undefined): string | undefined =>
  typeof value === "object" ? value[0] : value

/**
 * Our content has no validators, so `If-Range` never matches, and the whole content is sent (RFC 9110, section 13.1.5).
 */
const rangeOf = ({ headers, method }: HttpRequest): string | undefined =>
  method === "GET" && headers["if-range"] === undefined ? headerValue(headers["range"]) : undefined

const decodePath = (path: string): Option.Option<string> => {
  try {
    return Option.some(decodeURIComponent(path))
  } catch {
    return Option.none()
  }
}

const parseNamespace = (
  query: URLSearchParams
): Result.Result<Option.Option<string>, DistributionError.DistributionError> => {
  const [namespace, ...more] = query.getAll("ns")
  if (namespace === undefined) return Result.succeed(Option.none())
  return more.length === 0 && isRegistry(namespace)
    ? Result.succeed(Option.some(namespace))
    : Result.fail(
      DistributionError.nameInvalid("?ns= must be given once and be a registry host, with or without a port")
    )
}

const parseCount = (
  text: string | null
): Result.Result<Option.Option<number>, DistributionError.DistributionError> => {
  if (text === null) return Result.succeed(Option.none())
  return /^[0-9]{1,9}$/.test(text)
    ? Result.succeed(Option.some(Number(text)))
    : Result.fail(DistributionError.nameInvalid("?n= must be a number of tags, such as 100"))
}

const invalidDigest = Result.fail(
  DistributionError.digestInvalid("a digest is sha256: and 64, or sha512: and 128 lower-case hexadecimal digits")
)

const readOnly = (method: string) =>
  DistributionError.unsupported(`this is a read-only mirror: it answers GET and HEAD, not ${method}`)

/** `/v2/<name>/<endpoint>/<last>`, matched from the right, because a name may contain `manifests` or `blobs`. */
const endpoint = /^\/v2\/(?<name>.*)\/(?<endpoint>manifests|blobs|tags|referrers)\/(?<last>[^/]+)$/s
const uploads = /^\/v2\/.+\/blobs\/uploads(?:\/[^/]*)?$/s

/** A path that names content, in its parts. */
interface ContentPath {
  readonly name: string
  readonly endpoint: string
  readonly last: string
}

const unknownEndpoint = Result.fail(
  DistributionError.nameUnknown("no endpoint of the distribution API has this path")
)

/** The path, decoded, and the query as it came. */
const splitUrl = (
  url: string
): Result.Result<{ readonly path: string; readonly search: string }, DistributionError.DistributionError> => {
  const mark = url.indexOf("?")
  const decoded = decodePath(mark === -1 ? url : url.slice(0, mark))
  if (Option.isNone(decoded)) {
    return Result.fail(DistributionError.nameInvalid("the path has a broken percent-encoding"))
  }
  const path = decoded.value
  return path === "/v2" || path.startsWith("/v2/")
    ? Result.succeed({ path, search: mark === -1 ? "" : url.slice(mark + 1) })
    : Result.fail(DistributionError.nameUnknown("this is a registry: all its paths begin with /v2/"))
}

const parseManifest = (content: Content, reference: string): Parsed => {
  const digest = Digest.fromString(reference)
  if (Option.isSome(digest)) {
    const reference = ManifestReference.Digest({ digest: digest.value })
    return Result.succeed(DistributionRequest.Manifest({ ...content, reference }))
  }
  if (reference.includes(":")) return invalidDigest
  return isTag(reference)
    ? Result.succeed(
      DistributionRequest.Manifest({ ...content, reference: ManifestReference.Tag({ tag: reference }) })
    )
    : Result.fail(DistributionError.tagInvalid("a tag is 1 to 128 letters, digits, dots, dashes or underscores"))
}

const parseTagsList = ({ method, namespace, repository }: Content, query: URLSearchParams): Parsed => {
  const n = parseCount(query.get("n"))
  if (Result.isFailure(n)) return Result.fail(n.failure)
  const last = Option.fromNullishOr(query.get("last"))
  if (Option.isSome(last) && !isTag(last.value)) {
    return Result.fail(DistributionError.tagInvalid("?last= must be a tag"))
  }
  return Result.succeed(DistributionRequest.TagsList({ method, repository, namespace, n: n.success, last }))
}

const parseContent = (
  http: HttpRequest,
  method: Content["method"],
  { endpoint, last, name: repository }: ContentPath,
  query: URLSearchParams
): Parsed => {
  if (!isRepository(repository)) {
    return Result.fail(
      DistributionError.nameInvalid("a name is lower-case words joined by / . _ or -, at most 255 characters")
    )
  }
  const parsedNamespace = parseNamespace(query)
  if (Result.isFailure(parsedNamespace)) return Result.fail(parsedNamespace.failure)
  const namespace = parsedNamespace.success
  const content: Content = {
    method,
    repository,
    namespace,
    mirrored: headerValue(http.headers[mirroredHeader])?.toLowerCase() === "true",
    range: rangeOf(http)
  }
  if (endpoint === "manifests") return parseManifest(content, last)
  if (endpoint === "tags") return last === "list" ? parseTagsList(content, query) : unknownEndpoint
  const digest = Digest.fromString(last)
  if (Option.isNone(digest)) return invalidDigest
  return Result.succeed(
    endpoint === "blobs"
      ? DistributionRequest.Blob({ ...content, digest: digest.value })
      : DistributionRequest.Referrers({ method, repository, namespace, digest: digest.value })
  )
}

/** Reads a request. On failure the error is the answer: the client gets its status, code and body. */
export const parse = (http: HttpRequest): Parsed => {
  const { method, url } = http
  if (url.length > maxUrlLength) {
    return Result.fail(DistributionError.uriTooLong(`the URL is longer than ${maxUrlLength} characters`))
  }
  // `OPTIONS *` asks about the server as a whole: all we can say is which methods it has.
  if (url === "*") return Result.fail(readOnly(method))
  const split = splitUrl(url)
  if (Result.isFailure(split)) return Result.fail(split.failure)
  const { path, search } = split.success
  if (method !== "GET" && method !== "HEAD") return Result.fail(readOnly(method))
  if (path === "/v2" || path === "/v2/") return Result.succeed(DistributionRequest.Ping({ method }))
  if (uploads.test(path)) {
    return Result.fail(DistributionError.unsupported("this is a read-only mirror: it takes no uploads"))
  }
  const groups = endpoint.exec(path)?.groups as ContentPath | undefined
  return groups === undefined ? unknownEndpoint : parseContent(http, method, groups, new URLSearchParams(search))
}

const printQuery = (parameters: ReadonlyArray<readonly [string, Option.Option<string>]>): string => {
  const given = parameters.flatMap(([name, value]) =>
    Option.isNone(value) ? [] : [`${name}=${encodeURIComponent(value.value)}`]
  )
  return given.length === 0 ? "" : `?${given.join("&")}`
}

const printContent = (content: Content, path: string): HttpRequest => ({
  method: content.method,
  url: `/v2/${content.repository}/${path}${printQuery([["ns", content.namespace]])}`,
  headers: {
    ...(content.mirrored ? { [mirroredHeader]: "true" } : {}),
    ...(content.range === undefined ? {} : { range: content.range })
  }
})

/** The request as a client sends it; `parse` reads it back as it was. */
export const print: (request: DistributionRequest) => HttpRequest = DistributionRequest.$match({
  Ping: ({ method }) => ({ method, url: "/v2/", headers: {} }),
  Blob: (request) => printContent(request, `blobs/${request.digest}`),
  Manifest: (request) =>
    printContent(
      request,
      `manifests/${request.reference._tag === "Tag" ? request.reference.tag : request.reference.digest}`
    ),
  TagsList: ({ last, method, n, namespace, repository }) => ({
    method,
    url: `/v2/${repository}/tags/list${printQuery([["ns", namespace], ["n", Option.map(n, String)], ["last", last]])}`,
    headers: {}
  }),
  Referrers: ({ digest, method, namespace, repository }) => ({
    method,
    url: `/v2/${repository}/referrers/${digest}${printQuery([["ns", namespace]])}`,
    headers: {}
  })
})
