/**
 * The versions of containerd that clusters run, from Debian's packages: apt fetches them from the archive that this machine is
 * configured for; they are checked against pinned digests, and unpacked into a cache rather than installed.
 *
 * This module is also a program, which fetches versions and prints their paths:
 * `node --conditions=@spegel-ts/source packages/testing/src/containerd/ContainerdPackages.ts 1.7 2.1`.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Console, Data, Effect, Semaphore } from "effect"
import { createHash } from "node:crypto"
import { existsSync, readdirSync, readFileSync } from "node:fs"
import { mkdir, mkdtemp, rename, rm, writeFile } from "node:fs/promises"
import { arch, homedir } from "node:os"
import { join } from "node:path"
import { run } from "../process/Command.ts"

interface Pin {
  readonly suite: string
  readonly package: string
  /** sha256 of the package file, by Node's name of the architecture. */
  readonly sha256: Readonly<Record<string, string>>
}

const pins = {
  "1.6": {
    suite: "bookworm",
    package: "1.6.20~ds1-1+deb12u3",
    sha256: {
      x64: "8669d264eeb0fcdb4a0b1ba436ab88ec5dafde4a66e1278ec279d830db4c2216",
      arm64: "b946c7da94211c925fe8ed26fc0df4db045a976d7c8266c2ac107475a4ebee0f"
    }
  },
  "1.7": {
    suite: "trixie",
    package: "1.7.24~ds1-6+deb13u1",
    sha256: {
      x64: "ed708deb96fe476a3bce4efa5c0538dfbcf717ab9a7c7944ba7260342c25899c",
      arm64: "4af6b5a85498cc590eaf48d34c5c6c952ddabadae0afd6a9d2931d6a05782bc9"
    }
  },
  "2.1": {
    suite: "sid",
    package: "2.1.9+ds1-5",
    sha256: {
      x64: "2dda86ce7033fd612fc50e136679d8174ccad680eb29cd4611e0d2a1b84cf591",
      arm64: "43426c2af51f051e86374143d34031830ee5d0ff16bc23f35c6f498f27f8389d"
    }
  }
} satisfies Record<string, Pin>

export type Version = keyof typeof pins

export const versions = Object.keys(pins) as ReadonlyArray<Version>

export const isVersion = (text: string): text is Version => Object.hasOwn(pins, text)

/** The programs of one version; they use runc and libc of this machine. */
export interface Containerd {
  readonly version: Version
  readonly containerd: string
  readonly ctr: string
}

/** The package cannot be fetched; `reason` says what to do. */
export class PackageUnavailable extends Data.TaggedError("PackageUnavailable")<{
  readonly version: Version
  readonly reason: string
}> {
  override get message() {
    return `containerd ${this.version} (Debian ${pins[this.version].package}): ${this.reason}`
  }
}

/** An argument is not a version that is pinned here. */
class UnknownVersion extends Data.TaggedError("UnknownVersion")<{ readonly unknown: ReadonlyArray<string> }> {
  override get message() {
    return `${this.unknown.join(", ")}: not one of ${versions.join(", ")}`
  }
}

const cache = () => join(process.env["XDG_CACHE_HOME"] || join(homedir(), ".cache"), "spegel-ts", "containerd")

const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

/** The archive from which apt is configured to take Debian's packages. */
const configuredArchive = run("apt-get", [
  "indextargets",
  "--format",
  "$(REPO_URI)",
  "Identifier: Packages",
  "Origin: Debian",
  "Component: main"
]).pipe(Effect.map((output) => output.split("\n").find((uri) => uri !== "" && !uri.includes("security"))))

const download = Effect.fnUntraced(function*(version: Version) {
  const { package: debian, sha256, suite }: Pin = pins[version]
  const fail = (reason: string) => new PackageUnavailable({ version, reason })
  const expected = sha256[arch()]
  if (expected === undefined) return yield* fail(`not pinned for the architecture ${arch()}`)
  const archive = yield* configuredArchive.pipe(Effect.mapError(({ message }) => fail(message)))
  if (archive === undefined || !existsSync(keyring)) {
    return yield* fail("apt of this machine has no Debian sources or keys; run on Debian, after apt-get update")
  }
  yield* Effect.promise(() => mkdir(cache(), { recursive: true }))
  const directory = yield* Effect.acquireRelease(
    Effect.promise(() => mkdtemp(join(cache(), "fetch-"))),
    (directory) => Effect.promise(() => rm(directory, { recursive: true, force: true }))
  )
  const sources = join(directory, "sources.list")
  yield* Effect.promise(async () => {
    await mkdir(join(directory, "lists", "partial"), { recursive: true })
    await mkdir(join(directory, "archives", "partial"), { recursive: true })
    await writeFile(sources, `deb [signed-by=${keyring}] ${archive} ${suite} main\n`)
  })
  const settings = [
    `Dir::Etc::SourceList=${sources}`,
    "Dir::Etc::SourceParts=/dev/null",
    `Dir::State::Lists=${join(directory, "lists")}`,
    `Dir::Cache=${directory}`,
    "APT::Sandbox::User=root",
    "Acquire::Languages=none",
    // Descriptions for software centres, as large as the lists of packages.
    "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false"
  ].flatMap((setting) => ["-o", setting])
  yield* run("apt-get", [...settings, "--quiet=2", "update"]).pipe(Effect.mapError(({ output }) => fail(output)))
  const known = yield* run("apt-cache", [...settings, "madison", "containerd"]).pipe(
    Effect.mapError(({ output }) => fail(output))
  )
  const offered = known.split("\n").flatMap((line) => line.split("|")[1]?.trim() ?? [])
  if (!offered.includes(debian)) {
    return yield* fail(
      `is gone from ${suite}, which has ${offered.join(", ") || "none"} now; pin that one in ContainerdPackages.ts`
    )
  }
  const unpacked = join(directory, "unpacked")
  // apt writes it into its working directory.
  yield* run("apt-get", [...settings, "--quiet=2", "download", `containerd=${debian}`], { cwd: directory }).pipe(
    Effect.mapError(({ output }) => fail(output))
  )
  const deb = join(directory, readdirSync(directory).find((name) => name.endsWith(".deb")) ?? "")
  const actual = createHash("sha256").update(readFileSync(deb)).digest("hex")
  if (actual !== expected) return yield* fail(`the archive's file has sha256 ${actual}, but ${expected} is pinned`)
  yield* run("dpkg", ["-x", deb, unpacked]).pipe(Effect.mapError(({ output }) => fail(output)))
  yield* Effect.promise(() => rename(unpacked, join(cache(), debian))).pipe(
    // Another process was faster.
    Effect.catchDefect((defect) => existsSync(join(cache(), debian)) ? Effect.void : Effect.die(defect))
  )
}, Effect.scoped)

const oneAtATime = Semaphore.makeUnsafe(1)

/** Gives a version from the cache; fetches it first if it is not there yet, which takes half a minute. */
export const fetch = (version: Version): Effect.Effect<Containerd, PackageUnavailable> => {
  const bin = join(cache(), pins[version].package, "usr", "bin")
  const found = { version, containerd: join(bin, "containerd"), ctr: join(bin, "ctr") }
  return Effect.suspend(() => existsSync(found.containerd) ? Effect.void : download(version)).pipe(
    (fetching) => oneAtATime.withPermit(fetching),
    Effect.as(found)
  )
}

const main = Effect.gen(function*() {
  const asked = process.argv.slice(2)
  const unknown = asked.filter((text) => !isVersion(text))
  if (unknown.length > 0) return yield* new UnknownVersion({ unknown })
  for (const version of asked.length > 0 ? asked.filter(isVersion) : versions) {
    const { containerd } = yield* fetch(version)
    yield* Console.log(`${version} ${containerd}`)
  }
})

if (import.meta.main) NodeRuntime.runMain(main)
