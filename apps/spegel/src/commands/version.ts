import { Transfer } from "@spegel-ts/transfer/Transfer"
import { Console, Effect, References } from "effect"
import { Command, Flag } from "effect/cli"
import { readFileSync } from "node:fs"
import { flagOnly, flagsOf } from "../cli/Setting.ts"
import { commit, version as current } from "../Version.ts"

export const versionSettings = {
  format: flagOnly({
    description: "Output format",
    fallback: "text",
    metavar: "text|json",
    flag: (name) => Flag.Literals(name, ["text", "json"])
  })
}

/** The name of this system. */
const distribution = () => {
  try {
    return /^PRETTY_NAME="?([^"\n]*)/m.exec(readFileSync("/etc/os-release", "utf8"))?.[1] ?? "unknown"
  } catch {
    return "unknown"
  }
}

/** The data plane of this system, chosen as the mirror chooses it at its start. */
const dataPlane = Effect.gen(function*() {
  const { plane } = yield* Transfer
  return yield* plane
}).pipe(
  Effect.provide(Transfer.layer({ plane: "auto" })),
  Effect.provideService(References.MinimumLogLevel, "None")
)

/** The fields of Go Spegel's output, with Node's version in place of Go's, and the data plane. */
const details = Effect.map(dataPlane, ({ name }) => ({
  build: { version: current, commit, nodeVersion: process.version },
  runtime: {
    distro: distribution(),
    os: process.platform,
    arch: process.arch === "x64" ? "amd64" : process.arch,
    dataPlane: name
  }
}))

/** The first line is that of Go Spegel, which scripts may read. */
const text = ({ build, runtime }: Effect.Success<typeof details>) =>
  [
    `spegel version ${build.version} ${build.commit}`,
    `node: ${build.nodeVersion}`,
    `platform: ${runtime.os}/${runtime.arch}, ${runtime.distro}`,
    `data plane: ${runtime.dataPlane}`
  ].join("\n")

export const version = Command.make(
  "version",
  flagsOf(versionSettings),
  ({ format }) =>
    Effect.flatMap(details, (found) => Console.log(format === "json" ? JSON.stringify(found) : text(found)))
).pipe(
  Command.withDescription("Print the version, the commit, and what it runs on"),
  Command.withExamples([
    { command: "spegel version --format=json", description: "For a program" }
  ])
)
