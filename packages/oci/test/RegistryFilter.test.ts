import { assert, describe, it } from "@effect/vitest"
import * as NamePattern from "@spegel-ts/oci/NamePattern"
import * as RegistryFilter from "@spegel-ts/oci/RegistryFilter"
import { Effect, Result } from "effect"

describe("RegistryFilter", () => {
  it.effect("takes hosts and URLs, and leaves out what a pattern matches", () =>
    Effect.gen(function*() {
      const filter = Result.getOrThrow(RegistryFilter.make({
        mirroredRegistries: ["https://docker.io", "registry.example:5000"],
        registryFilters: [yield* NamePattern.compile(":latest$"), yield* NamePattern.compile("/private/")]
      }))
      const handles = (registry: string, tag?: string, repository = "a/b") =>
        filter({ registry, repository, ...(tag === undefined ? {} : { tag }) })
      assert.isTrue(handles("docker.io", "v1"))
      assert.isTrue(handles("registry.example:5000"))
      assert.isFalse(handles("ghcr.io"))
      assert.isFalse(handles("docker.io", "latest"))
      assert.isFalse(handles("docker.io", "v1", "team/private/app"))
    }))

  it("names a registry that is none", () => {
    const error = Result.flip(RegistryFilter.make({ mirroredRegistries: ["https://a/b"], registryFilters: [] }))
    assert.include(Result.getOrThrow(error).message, "https://a/b")
  })
})
