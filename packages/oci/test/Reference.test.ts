import { assert, describe, it } from "@effect/vitest"
import * as Reference from "@spegel-ts/oci/Reference"
import { Result, Schema } from "effect"

const text = (pattern: RegExp) => Schema.String.pipe(Schema.check(Schema.isPattern(pattern)))
const Registry = text(
  /^(?:[a-z][a-z0-9]{0,8}\.example|localhost|10\.0\.0\.[1-9]|\[fd00::[1-9]\])(?::[1-9][0-9]{1,3})?$/
)
const Repository = text(/^[a-z0-9]{1,6}(?:(?:[._]|__|-{1,3})[a-z0-9]{1,4}){0,2}(?:\/[a-z0-9]{1,6}){0,3}$/)
const Tag = text(/^[A-Za-z0-9_][A-Za-z0-9._-]{0,20}$/)
/** Close enough to a reference to be taken for one by a careless parser. */
const Near = Schema.Union([text(/^[a-cA-C0-9._/:@[\]-]{0,24}$/), Schema.String])
const Hex = text(/^[0-9a-f]{64}$/)

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
    // distribution/reference, as one expression of its own.
    const component = "[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*"
    const host =
      "(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*|\\[[0-9a-fA-F:.]+\\])(?::[0-9]+)?"
    const grammar = new RegExp(
      `^(?:${host}/)?${component}(?:/${component})*(?::[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(?:@sha(?:256:[0-9a-f]{64}|512:[0-9a-f]{128}))?$`
    )
    if (Result.isSuccess(Reference.parse(written))) assert.match(written, grammar)
  })

  it("completes the short names of docker.io", () => {
    for (
      const [short, full] of [
        ["nginx", "docker.io/library/nginx"],
        ["nginx:1.27", "docker.io/library/nginx:1.27"],
        ["grafana/grafana", "docker.io/grafana/grafana"],
        ["index.docker.io/library/nginx", "docker.io/library/nginx"],
        ["docker.io/nginx", "docker.io/library/nginx"],
        ["localhost/app:v1", "localhost/app:v1"],
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
