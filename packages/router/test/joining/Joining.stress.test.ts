import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { execFile, execFileSync } from "node:child_process"
import { fileURLToPath } from "node:url"

const program = fileURLToPath(new URL("ThousandPeers.ts", import.meta.url))

/** Addresses of a separate network. Packets to one that no interface has are swallowed, or refused on loopback. */
const networks = {
  refuse: { alive: "127.77.0.1", seeker: "127.77.0.2", dead: "127.77" },
  swallow: { alive: "10.77.0.1", seeker: "10.77.0.2", dead: "10.77" }
} as const

const run = ({ alive, dead, seeker }: typeof networks["refuse" | "swallow"]) =>
  Effect.callback<Record<string, unknown>>((resume) => {
    const script = [
      "ip link set lo up",
      "ip link add swallow type veth peer name nowhere",
      "ip link set nowhere up",
      // With ARP, the kernel would report after three seconds that nobody answers.
      "ip link set swallow arp off",
      "ip addr add 10.77.0.1/16 dev swallow",
      "ip addr add 10.77.0.2/16 dev swallow",
      "ip link set swallow up",
      "exec \"$0\" --conditions=@spegel-ts/source \"$@\""
    ].join(" && ")
    const child = execFile(
      "unshare",
      ["--net", "sh", "-c", script, process.execPath, program, alive, seeker, dead],
      (error, stdout, stderr) => {
        const last = stdout.trim().split("\n").at(-1) ?? ""
        resume(error === null ? Effect.succeed(JSON.parse(last)) : Effect.die(new Error(`${error.message}\n${stderr}`)))
      }
    )
    return Effect.sync(() => child.kill("SIGKILL"))
  })

const missing = (() => {
  try {
    execFileSync("unshare", ["--net", "ip", "link", "add", "x", "type", "veth"], { stdio: "ignore" })
    return undefined
  } catch {
    return "needs root, unshare and ip"
  }
})()
if (missing !== undefined && process.env["CI"] === "true") throw new Error(`CI lacks a prerequisite: ${missing}`)

describe.skipIf(missing !== undefined)(`Joining${missing === undefined ? "" : ` (skipped: ${missing})`}`, () => {
  for (const [what, network] of Object.entries(networks)) {
    it.live(
      `meets the one of a thousand that is alive within 10 s where the others ${what} connections`,
      () =>
        Effect.gen(function*() {
          const result = yield* run(network)
          assert.strictEqual(result["standing"], "Joined", JSON.stringify(result))
          assert.isBelow(Number(result["joinedMillis"]), 10_000, JSON.stringify(result))
        }),
      60_000
    )
  }
})
