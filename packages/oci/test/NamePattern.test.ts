import { assert, describe, it } from "@effect/vitest"
import * as NamePattern from "@spegel-ts/oci/NamePattern"
import { Effect } from "effect"

const name = "ghcr.io/acme/app:v12"

/** Whether each expression matches some part of the name by Go 1.26's `regexp`. */
const matches: ReadonlyArray<readonly [expression: string, matched: boolean]> = [
  [":v12$", true],
  ["acme", true],
  ["^acme", false],
  ["(?i)GHCR\\.IO", true],
  ["(?i:GHCR)\\.io", true],
  ["GHCR", false],
  ["\\Aghcr", true],
  [":v12\\z", true],
  ["\\Aacme", false],
  ["^[[:alnum:].]+/[[:lower:]]+/", true],
  ["[[:^ascii:]]", false],
  ["(?P<registry>ghcr\\.io)/", true],
  ["(?<registry>ghcr\\.io)/", true],
  ["\\Qghcr.io/acme\\E", true],
  ["\\Qghcr-io/acme\\E", false],
  ["acme\\/app\\:v", true],
  [":v\\d{1,3}$", true],
  [":v\\d{3,}$", false],
  ["a{,2}", false],
  ["\\pL\\PL", true],
  ["\\p{Greek}", false],
  ["\\x67\\x{68}cr", true],
  ["(?U)a.*e/", true],
  ["(?s)ghcr.io", true],
  ["(?-i)ghcr", true],
  ["(?:)", true],
  ["", true],
  ["|never", true],
  ["[^/]+/[^/]+/[^/]+$", true],
  ["\\bapp\\b", true],
  ["[]g]h", true],
  ["a*?b??c", true]
]

/** The expressions that Go refuses, with a part of its reason. */
const refused: ReadonlyArray<readonly [expression: string, reason: string]> = [
  ["(", "missing closing )"],
  ["a)", "unexpected )"],
  ["[a", "missing closing ]"],
  ["[z-a]", "invalid character class range"],
  ["[[:nothing:]]", "invalid character class range"],
  ["*", "missing argument to repetition operator"],
  ["a**", "invalid nested repetition operator"],
  ["a{1001}", "invalid repeat count"],
  ["a{2,1}", "invalid repeat count"],
  ["((a{100}){100}){100}", "invalid repeat count"],
  ["(?=a)", "invalid or unsupported Perl syntax"],
  ["(?<!a)", "(?<"],
  ["(?x)a b", "invalid or unsupported Perl syntax"],
  ["(?>a)", "invalid or unsupported Perl syntax"],
  ["(?P<a-b>x)", "invalid named capture"],
  ["(a)\\1", "invalid escape sequence"],
  ["\\Z", "invalid escape sequence"],
  ["\\8", "invalid escape sequence"],
  ["\\u0061", "invalid escape sequence"],
  ["\\", "trailing backslash"],
  ["\\p{Klingon}", "invalid character class range"],
  ["\\x{110000}", "invalid escape sequence"]
]

describe("NamePattern", () => {
  for (const [expression, matched] of matches) {
    it.effect(`${JSON.stringify(expression)} ${matched ? "matches" : "does not match"}, as in Go`, () =>
      Effect.gen(function*() {
        assert.strictEqual((yield* NamePattern.compile(expression)).matches(name), matched)
      }))
  }

  for (const [expression, reason] of refused) {
    it.effect(`${JSON.stringify(expression)} is refused, as in Go: ${reason}`, () =>
      Effect.gen(function*() {
        const error = yield* Effect.flip(NamePattern.compile(expression))
        assert.strictEqual(error.expression, expression)
        assert.include(error.message, reason)
      }))
  }

  // JavaScript's own engine takes longer than the universe is old for each of these.
  const backtracking: ReadonlyArray<readonly [expression: string, name: string]> = [
    ["^docker\\.io/([a-z0-9]+-?)+:debug$", `docker.io/${"a".repeat(10_000)}:debug!`],
    ["^(.*/)*([a-z]+)*-snapshot$", `docker.io/${"a".repeat(10_000)}-snapshot!`],
    ["(x+x+)+y$", `${"x".repeat(10_000)}y!`],
    ["(.*)(.*)(.*)(.*)(.*)[a-z]{50}!$", `${"a".repeat(10_000)}!?`],
    ["([ab]*a[ab]{30})+c$", `${"ab".repeat(5_000)}c!`]
  ]
  for (const [expression, long] of backtracking) {
    it.effect(`${expression} does not backtrack`, () =>
      Effect.gen(function*() {
        assert.isFalse((yield* NamePattern.compile(expression)).matches(long))
      }))
  }
})
