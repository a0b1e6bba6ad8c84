import { assert, describe, it } from "@effect/vitest"
import * as MirrorArguments from "@spegel-ts/spegel/doctor/MirrorArguments"

const flags = new Set(["registry-addr", "mirrored-registries", "containerd-sock"])
const running = [
  "/nodejs/bin/node",
  "/app/main.js",
  "registry",
  "--registry-addr=:5000",
  "--data-dir=/data",
  "--mirrored-registries",
  "docker.io",
  "ghcr.io",
  "--containerd-sock",
  "/run/c.sock",
  ""
]

describe("MirrorArguments", () => {
  it("adds the flags of the mirror that the command has, and is not given", () => {
    assert.deepStrictEqual(MirrorArguments.inherit(["doctor", "--output=json"], flags, running), [
      "doctor",
      "--registry-addr=:5000",
      "--mirrored-registries",
      "docker.io",
      "ghcr.io",
      "--containerd-sock",
      "/run/c.sock",
      "--output=json"
    ])
    assert.deepStrictEqual(
      MirrorArguments.inherit(["doctor", "--mirrored-registries=quay.io", "-containerd-sock", "/x"], flags, running),
      ["doctor", "--registry-addr=:5000", "--mirrored-registries=quay.io", "-containerd-sock", "/x"]
    )
  })

  it("leaves other commands alone, and takes nothing from other programs", () => {
    assert.deepStrictEqual(MirrorArguments.inherit(["version"], flags, running), ["version"])
    for (const other of [[], ["/sbin/init"], ["docker", "registry", "--registry-addr=:1"], ["spegel", "cleanup"]]) {
      assert.deepStrictEqual(MirrorArguments.inherit(["doctor"], flags, other), ["doctor"], other.join(" "))
    }
  })
})
