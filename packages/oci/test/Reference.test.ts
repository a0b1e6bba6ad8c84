import { assert, describe, it } from "@effect/vitest"
import * as Reference from "@spegel-ts/oci/Reference"
import { Result, Schema } from "effect"
import { isIPv6 } from "node:net"

const text = (pattern: RegExp) => Schema.String.pipe(Schema.check(Schema.isPattern(pattern)))
const Registry = text(
  /^(?:[a-z][a-z0-9]{0,8}\.example|localhost|10\.0\.0\.[1-9]|\[fd00::[1-9]\])(?::[1-9][0-9]{1,3})?$/
)
const Repository = text(/^[a-z0-9]{1,6}(?:(?:[._]|__|-{1,3})[a-z0-9]{1,4}){0,2}(?:\/[a-z0-9]{1,6}){0,3}$/)
const Tag = text(/^[A-Za-z0-9_][A-Za-z0-9._-]{0,20}$/)
/** Close enough to a reference to be taken for one by a careless parser. */
const Near = Schema.Union([text(/^[a-cA-C0-9._/:@[\]-]{0,24}$/), Schema.String])
const Hex = text(/^[0-9a-f]{64}$/)

/** Replacements of one character: most of them are legal in one part of a reference only. */
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
  "[",
  "]",
  "0",
  "a",
  "A",
  " ",
  "\n",
  "\u0000",
  "%2F",
  "é",
  "\u{1F600}"
])
const Place = Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: 120 })))

/** distribution/reference and its split of docker.io names, as expressions of their own. */
const component = "[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*"
const host = "[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
const rest =
  `${component}(?:/${component})*(?::[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(?:@sha(?:256:[0-9a-f]{64}|512:[0-9a-f]{128}))?$`
const withoutRegistry = new RegExp(`^${rest}`)
const withRegistry = new RegExp(`^(?:${host}(?:\\.${host})*|\\[([^\\]]*)\\])(?::([0-9]{1,5}))?/${rest}`)
const isInGrammar = (reference: string): boolean => {
  const [first = "", ...more] = reference.split("/")
  if (more.length === 0 || !(/[.:[]/.test(first) || first === "localhost")) return withoutRegistry.test(reference)
  const match = withRegistry.exec(reference)
  if (match === null) return false
  const [, address, port] = match
  return (address === undefined || isIPv6(address)) && (port === undefined || (+port > 0 && +port < 65_536))
}

const parsed = (reference: string) => Result.getOrThrow(Reference.parse(reference))
const digest = `sha256:${"0123456789abcdef".repeat(4)}`

describe("Reference", () => {
  it.prop("parse reads what print wrote", [Registry, Repository, Tag, Hex, Schema.Boolean, Schema.Boolean], ([
    registry,
    repository,
    tag,
    hex,
    withTag,
    withDigest
  ]) => {
    const written = `${registry}/${repository}${withTag ? `:${tag}` : ""}${withDigest ? `@sha256:${hex}` : ""}`
    const reference = parsed(written)
    assert.strictEqual(Reference.print(reference), written)
    assert.deepStrictEqual(parsed(Reference.print(reference)), reference)
  })

  it.prop("nothing outside the grammar is read", [Near], ([written]) => {
    if (Result.isSuccess(Reference.parse(written))) assert.isTrue(isInGrammar(written))
  })

  it.prop(
    "one character away from a reference, the grammar alone decides",
    [Registry, Repository, Tag, Hex, Place, Replacement],
    ([registry, repository, tag, hex, place, replacement]) => {
      for (
        const whole of [
          `${registry}/${repository}:${tag}@sha256:${hex}`,
          `${registry}/${repository}`,
          `${repository}:${tag}`
        ]
      ) {
        const at = place % whole.length
        const mutated = whole.slice(0, at) + replacement + whole.slice(at + 1)
        const outcome = Reference.parse(mutated)
        assert.strictEqual(Result.isSuccess(outcome), isInGrammar(mutated), JSON.stringify(mutated))
        if (Result.isSuccess(outcome)) assert.deepStrictEqual(parsed(Reference.print(outcome.success)), outcome.success)
      }
    }
  )

  it("completes the short names of docker.io", () => {
    for (
      const [short, full] of [
        ["nginx", "docker.io/library/nginx"],
        ["nginx:1.27", "docker.io/library/nginx:1.27"],
        ["grafana/grafana", "docker.io/grafana/grafana"],
        ["index.docker.io/library/nginx", "docker.io/library/nginx"],
        ["docker.io/nginx", "docker.io/library/nginx"],
        ["localhost/app:v1", "localhost/app:v1"],
        ["localhost:5000", "docker.io/library/localhost:5000"],
        [`nginx@sha512:${"0f".repeat(64)}`, `docker.io/library/nginx@sha512:${"0f".repeat(64)}`],
        // 255 characters with what is completed.
        ["a".repeat(247), `docker.io/library/${"a".repeat(247)}`],
        ["[::1]:5000/app", "[::1]:5000/app"],
        [`registry.example:5000/a/b:v1@${digest}`, `registry.example:5000/a/b:v1@${digest}`]
      ] as const
    ) {
      assert.strictEqual(Reference.print(parsed(short)), full)
    }
  })

  it("names the part that is wrong", () => {
    for (
      const [reference, part] of [
        ["", "repository"],
        ["UPPER/case", "repository"],
        ["a//b", "repository"],
        ["registry.example/../etc/passwd", "repository"],
        [`registry.example/${"a".repeat(256)}`, "repository"],
        ["a".repeat(248), "repository"],
        ["a%2Fb", "repository"],
        ["é/a", "repository"],
        ["a/b\n", "repository"],
        ["app:v1\n", "tag"],
        [`app@${digest}\n`, "digest"],
        [`app@${digest}@${digest}`, "digest"],
        ["-a.b/c", "registry"],
        ["a..b/c", "registry"],
        ["a.b:/c", "registry"],
        ["a.b:0/c", "registry"],
        ["registry.example:99999/app", "registry"],
        ["[::zz]/app", "registry"],
        ["app:", "tag"],
        ["app:.hidden", "tag"],
        [`app:${"t".repeat(129)}`, "tag"],
        ["app@sha256:abc", "digest"],
        [`app@${digest.toUpperCase()}`, "digest"],
        ["app\u0000", "repository"]
      ] as const
    ) {
      const error = Result.getOrThrow(Result.flip(Reference.parse(reference)))
      assert.strictEqual(error.part, part, reference)
      assert.include(error.message, part)
    }
  })
})
