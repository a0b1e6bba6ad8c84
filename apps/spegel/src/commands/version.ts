import { Transfer } from "@spegel-ts/transfer/Transfer"
import { Console, Effect, References } from "effect"
import { Command, Flag } from "effect/cli"
import { readFileSync } from "node:fs"
import { flagOnly, flagsOf } from "../cli/Setting.ts"
import { version as current } from "../Version.ts"

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
  build: { version: current, nodeVersion: process.version },
  runtime: {
    distro: distribution(),
    os: process.platform,
    arch: process.arch === "x64" ? "amd64" : process.arch,
    dataPlane: name
  }
}))

export const version = Command.make(
  "version",
  flagsOf(versionSettings),
  ({ format }) =>
    Effect.flatMap(details, (found) =>
      Console.log(
        format === "json"
          ? JSON.stringify(found)
          : `spegel version ${current}\ndata plane: ${found.runtime.dataPlane}`
      ))
).pipe(Command.withDescription("Print the version"))
