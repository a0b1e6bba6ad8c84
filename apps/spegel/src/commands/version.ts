import { Console, Effect } from "effect"
import { Command, Flag } from "effect/cli"
import { readFileSync } from "node:fs"
import { version as current } from "../Version.ts"

const flags = {
  format: Flag.Literals("format", ["text", "json"]).pipe(
    Flag.withDescription("How to print it (default text)"),
    Flag.withDefault("text")
  )
}

/** The name of this system. */
const distribution = () => {
  try {
    return /^PRETTY_NAME="?([^"\n]*)/m.exec(readFileSync("/etc/os-release", "utf8"))?.[1] ?? "unknown"
  } catch {
    return "unknown"
  }
}

/** In the words of Go Spegel's, with Node's version in place of Go's. */
const details = () => ({
  build: { version: current, nodeVersion: process.version },
  runtime: { distro: distribution(), os: process.platform, arch: process.arch === "x64" ? "amd64" : process.arch }
})

export const version = Command.make(
  "version",
  flags,
  ({ format }) =>
    Effect.suspend(() => Console.log(format === "json" ? JSON.stringify(details()) : `spegel version ${current}`))
).pipe(Command.withDescription("Print the version"))
