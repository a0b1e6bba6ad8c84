import { assert, describe, it } from "@effect/vitest"
import * as DistributionRequest from "@spegel-ts/oci/DistributionRequest"
import { Option, Result, Schema } from "effect"

const digest = `sha256:${"0123456789abcdef".repeat(4)}`
const parse = (method: string, url: string, headers: DistributionRequest.HttpRequest["headers"] = {}) =>
  DistributionRequest.parse({ method, url, headers })
const read = (method: string, url: string, headers?: DistributionRequest.HttpRequest["headers"]) =>
  Result.getOrThrow(parse(method, url, headers))
const refused = (method: string, url: string) => {
  const { code, status } = Result.getOrThrow(Result.flip(parse(method, url)))
  return [status, code]
}

const text = (pattern: RegExp) => Schema.String.pipe(Schema.check(Schema.isPattern(pattern)))
const Name = text(/^(?:[a-z0-9]{1,5}|blobs|manifests|tags|list)(?:\/(?:[a-z0-9]{1,5}|blobs|manifests|tags)){0,3}$/)
const Tag = text(/^[A-Za-z0-9_][A-Za-z0-9._-]{0,12}$/)
const Method = Schema.Literals(["GET", "HEAD"])
const Namespace = text(/^(?:[a-z]{1,6}\.example|\[fd00::[1-9]\])(?::[1-9][0-9]{3})?$/)
const Hex = text(/^[0-9a-f]{64}$/)
/** Replacements of one character: most of them are legal in one part of a path only. */
const Replacement = Schema.Literals([
  "",
  "/",
  "//",
  ":",
  "@",
  ".",
  "..",
  "-",
  "--",
  "_",
  "__",
  "___",
  "0",
  "a",
  "A",
  " ",
  "\n",
  "\u0000",
  "%2F",
  "?",
  "#",
  "é",
  "\u{1F600}"
])
const Place = Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: 120 })))

/** The paths of the specification, as one expression of its own. */
const component = "[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*"
const grammar = new RegExp(
  `^/v2/${component}(?:/${component})*/(?:manifests/[A-Za-z0-9_][A-Za-z0-9._-]{0,127}|(?:manifests|blobs|referrers)/sha(?:256:[0-9a-f]{64}|512:[0-9a-f]{128})|tags/list)$`
)
const encoded = (path: string) => encodeURI(path.toWellFormed()).replaceAll("?", "%3F").replaceAll("#", "%23")
/** Close enough to a name, a tag or a digest to be taken for one by a careless parser. */
const Near = Schema.Union([text(/^[a-cA-C0-9._/:%-]{0,14}$/), text(/^sha256:[0-9a-fA-F]{63,65}$/), Schema.String])
const Range = text(/^bytes=[0-9]{1,4}-$/)

describe("DistributionRequest", () => {
  it.prop("parse reads what print wrote", [Method, Name, Tag, Namespace, Range, Schema.Boolean], ([
    method,
    repository,
    tag,
    ns,
    range,
    flag
  ]) => {
    const namespace = flag ? Option.some(ns) : Option.none<string>()
    const content = {
      method,
      repository,
      namespace,
      mirrored: flag,
      range: flag && method === "GET" ? range : undefined
    }
    const value = Option.getOrThrow(Result.getSuccess(parse("GET", `/v2/x/blobs/${digest}`)))
    if (value._tag !== "Blob") throw new Error("no blob")
    const requests = [
      DistributionRequest.DistributionRequest.Ping({ method }),
      DistributionRequest.DistributionRequest.Blob({ ...content, digest: value.digest }),
      DistributionRequest.DistributionRequest.Manifest({
        ...content,
        reference: DistributionRequest.ManifestReference.Tag({ tag })
      }),
      DistributionRequest.DistributionRequest.Manifest({
        ...content,
        reference: DistributionRequest.ManifestReference.Digest({ digest: value.digest })
      }),
      DistributionRequest.DistributionRequest.TagsList({
        method,
        repository,
        namespace,
        n: flag ? Option.some(7) : Option.none(),
        last: flag ? Option.some(tag) : Option.none()
      }),
      DistributionRequest.DistributionRequest.Referrers({ method, repository, namespace, digest: value.digest })
    ]
    for (const request of requests) {
      assert.deepStrictEqual(
        Result.getOrThrow(DistributionRequest.parse(DistributionRequest.print(request))),
        request
      )
    }
  })

  it.prop("nothing outside the grammar is read", [Near, Near], ([name, last]) => {
    for (const kind of ["manifests", "blobs", "tags", "referrers"]) {
      const path = `/v2/${name}/${kind}/${last}`
      if (Result.isSuccess(parse("GET", encoded(path)))) assert.match(path, grammar)
    }
  })

  it.prop(
    "one character away from a request, the grammar alone decides",
    [Name, Tag, Hex, Place, Replacement],
    ([name, tag, hex, place, replacement]) => {
      for (
        const end of [
          `manifests/${tag}`,
          `manifests/sha256:${hex}`,
          `blobs/sha256:${hex}`,
          `referrers/sha256:${hex}`,
          "tags/list"
        ]
      ) {
        const whole = `/v2/${name}/${end}`
        const at = place % whole.length
        const mutated = whole.slice(0, at) + replacement + whole.slice(at + 1)
        assert.strictEqual(
          Result.isSuccess(parse("GET", encoded(mutated))),
          grammar.test(mutated),
          JSON.stringify(mutated)
        )
      }
    }
  )

  it("reads from the right: a name may hold the words of endpoints", () => {
    for (const repository of ["blobs", "a/manifests/b", "tags/list", "a/blobs/uploads", "manifests/manifests"]) {
      assert.deepInclude(read("GET", `/v2/${repository}/manifests/v1`), { _tag: "Manifest", repository })
      assert.deepInclude(read("GET", `/v2/${repository}/tags/list`), { _tag: "TagsList", repository })
    }
  })

  it("reads the path after its percent-encoding is undone, once", () => {
    assert.deepInclude(read("GET", "/v2/a%2Fb/manifests/v1"), { repository: "a/b" })
    assert.deepStrictEqual(refused("GET", "/v2/a%252Fb/manifests/v1"), [400, "NAME_INVALID"])
  })

  it("knows a peer by its header alone", () => {
    for (const [value, mirrored] of [["true", true], [["true"], true], ["false", false], ["", false]] as const) {
      assert.deepInclude(read("GET", "/v2/a/manifests/v1", { "x-spegel-mirrored": value }), { mirrored })
    }
  })

  it("takes a range from GET alone, and none that hangs on a validator", () => {
    const fields = { range: "bytes=5-" }
    assert.deepInclude(read("GET", `/v2/a/blobs/${digest}`, fields), { range: "bytes=5-" })
    assert.deepInclude(read("HEAD", `/v2/a/blobs/${digest}`, fields), { range: undefined })
    assert.deepInclude(read("GET", `/v2/a/blobs/${digest}`, { ...fields, "if-range": `"${digest}"` }), {
      range: undefined
    })
  })

  it("says of the server as a whole which methods it has", () => {
    assert.deepStrictEqual(refused("OPTIONS", "*"), [405, "UNSUPPORTED"])
  })

  it("reads what containerd sends", () => {
    const request = read("GET", `/v2/library/nginx/manifests/${digest}?ns=docker.io`, {
      "x-spegel-mirrored": "true",
      range: "bytes=5-"
    })
    assert.deepInclude(request, {
      _tag: "Manifest",
      repository: "library/nginx",
      namespace: Option.some("docker.io"),
      mirrored: true,
      range: "bytes=5-"
    })
    const withPort = read("HEAD", "/v2/team/app/manifests/v1?ns=registry.example%3A5000")
    assert.deepInclude(withPort, { namespace: Option.some("registry.example:5000") })
  })

  it("gives each mistake the code that the specification has for it", () => {
    assert.deepStrictEqual(refused("GET", "/"), [404, "NAME_UNKNOWN"])
    assert.deepStrictEqual(refused("GET", "/v2/a"), [404, "NAME_UNKNOWN"])
    assert.deepStrictEqual(refused("GET", "/v2/UPPER/manifests/v1"), [400, "NAME_INVALID"])
    assert.deepStrictEqual(refused("GET", "/v2/a/../b/manifests/v1"), [400, "NAME_INVALID"])
    for (
      const name of [
        "",
        "/a",
        "a/",
        "a//b",
        "a%2F..%2Fb",
        "%2e%2e",
        "a%00",
        "a%0A",
        "%C3%A9",
        "A",
        "a%20b",
        ".a",
        "a___b"
      ]
    ) {
      assert.deepStrictEqual(refused("GET", `/v2/${name}/manifests/v1`), [400, "NAME_INVALID"], name)
    }
    assert.deepStrictEqual(refused("GET", "/v2/a/manifests/v1%0A"), [400, "TAG_INVALID"])
    assert.deepStrictEqual(refused("GET", `/v2/a/blobs/${digest}%00`), [400, "DIGEST_INVALID"])
    assert.deepStrictEqual(refused("GET", `/v2/a/referrers/${digest.toUpperCase()}`), [400, "DIGEST_INVALID"])
    assert.deepStrictEqual(refused("GET", "/v2/_catalog"), [404, "NAME_UNKNOWN"])
    assert.deepStrictEqual(refused("GET", "/v2/a/manifests/%"), [400, "NAME_INVALID"])
    assert.deepStrictEqual(refused("GET", "/v2/a/manifests/v1?ns=/etc"), [400, "NAME_INVALID"])
    assert.deepStrictEqual(refused("GET", "/v2/a/manifests/v1?ns=a.b&ns=c.d"), [400, "NAME_INVALID"])
    assert.deepStrictEqual(refused("GET", `/v2/${"a/".repeat(200)}b/manifests/v1`), [400, "NAME_INVALID"])
    assert.deepStrictEqual(refused("GET", `/v2/a/manifests/${"v".repeat(9000)}`), [414, "NAME_INVALID"])
    assert.deepStrictEqual(refused("GET", "/v2/a/manifests/.v1"), [400, "TAG_INVALID"])
    assert.deepStrictEqual(refused("GET", "/v2/a/blobs/sha256:abc"), [400, "DIGEST_INVALID"])
    assert.deepStrictEqual(refused("GET", "/v2/a/manifests/sha256:abc"), [400, "DIGEST_INVALID"])
    assert.deepStrictEqual(refused("GET", "/v2/a/tags/list?n=many"), [400, "NAME_INVALID"])
    assert.deepStrictEqual(refused("PUT", "/v2/a/manifests/v1"), [405, "UNSUPPORTED"])
    assert.deepStrictEqual(refused("DELETE", `/v2/a/blobs/${digest}`), [405, "UNSUPPORTED"])
    assert.deepStrictEqual(refused("PATCH", "/v2/a/blobs/uploads/1"), [405, "UNSUPPORTED"])
    assert.deepStrictEqual(refused("POST", "/v2/a/blobs/uploads/"), [405, "UNSUPPORTED"])
    assert.deepStrictEqual(refused("GET", "/v2/a/blobs/uploads/1"), [405, "UNSUPPORTED"])
  })
})
