import { assert, describe, it } from "@effect/vitest"
import * as MirrorArguments from "@spegel-ts/spegel/doctor/MirrorArguments"

const flags = new Set(["registry-addr", "mirrored-registries", "containerd-sock"])
const script = "/app/main.js"
const commandLine = [
  "/nodejs/bin/node",
  "--no-maglev",
  script,
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
const running = { script, commandLine }

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
    const others = [
      [],
      ["/sbin/init"],
      ["docker", "registry", "--registry-addr=:1"],
      ["/nodejs/bin/node", script, "cleanup", "--containerd-sock=/x"]
    ]
    for (const commandLine of others) {
      const args = MirrorArguments.inherit(["doctor"], flags, { script, commandLine })
      assert.deepStrictEqual(args, ["doctor"], commandLine.join(" "))
    }
  })
})
