/** Makes what a release consists of: `npm run image`, `npm run pack-packages`, `npm run docs`. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { version } from "@spegel-ts/spegel/Version"
import { Console, Effect } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { mkdtemp, rm } from "node:fs/promises"
import { arch, tmpdir } from "node:os"
import { join, resolve } from "node:path"
import { fileURLToPath } from "node:url"
import * as ImageDefinition from "./ImageDefinition.ts"
import * as OciArchive from "./OciArchive.ts"
import * as PackageTarballs from "./PackageTarballs.ts"
import * as RootFilesystem from "./RootFilesystem.ts"

const repository = fileURLToPath(new URL("../../..", import.meta.url))
const architectures = new Map([["x64", "amd64"]])

const makeRoot = Effect.fnUntraced(function*(directory: string) {
  const definition = yield* ImageDefinition.load
  yield* RootFilesystem.make({
    directory,
    definition,
    node: process.execPath,
    bundle: join(repository, "apps/spegel/bundle"),
    license: join(repository, "LICENSE")
  })
  return { definition, trees: [join(directory, "base"), join(directory, "app")] }
})

const root = Command.make(
  "root",
  { directory: Argument.String("directory").pipe(Argument.withDescription("Directory to make")) },
  ({ directory }) => makeRoot(directory)
).pipe(Command.withDescription("Make the image's files, for the Dockerfile"))

const image = Command.make(
  "image",
  {
    output: Flag.String("output").pipe(
      Flag.withDescription("File to write (default dist-image.tar)"),
      Flag.withDefault(join(repository, "dist-image.tar"))
    )
  },
  Effect.fnUntraced(function*({ output }) {
    const temporary = yield* Effect.acquireRelease(
      Effect.promise(() => mkdtemp(join(tmpdir(), "spegel-image-"))),
      (directory) => Effect.promise(() => rm(directory, { recursive: true, force: true }))
    )
    const { definition, trees } = yield* makeRoot(join(temporary, "root"))
    const { bytes, digest } = yield* OciArchive.make({
      path: output,
      name: `ghcr.io/spegel-ts/spegel:v${version}`,
      architecture: architectures.get(arch()) ?? arch(),
      version,
      definition,
      trees
    })
    yield* Console.log(`${output}: ${digest}, ${(bytes / 1e6).toFixed(1)} MB to pull`)
  }, Effect.scoped)
).pipe(Command.withDescription("Build the image without Docker, from what is installed here: Debian, and the bundle"))

const docs = Command.make(
  "docs",
  {
    check: Flag.Boolean("check").pipe(
      Flag.withDescription("Only check that they are up to date"),
      Flag.withDefault(false)
    )
  },
  Effect.fnUntraced(function*({ check }) {
    // Images are built without what it needs.
    const Documents = yield* Effect.promise(() => import("./Documents.ts"))
    yield* Documents.updateAll({ root: repository, check })
  })
).pipe(Command.withDescription("Write the tables of flags, metrics and chart values into the documents"))

const packPackages = Command.make(
  "pack-packages",
  { directory: Argument.String("directory").pipe(Argument.withDescription("Directory to write the tarballs into")) },
  Effect.fnUntraced(function*({ directory }) {
    const tarballs = yield* PackageTarballs.pack(repository, resolve(directory))
    yield* Console.log(tarballs.join("\n"))
  })
).pipe(Command.withDescription("Pack the npm packages as they are published; they have to be compiled"))

const release = Command.make("release").pipe(
  Command.withDescription("What users install and read: the image, the npm packages, tables in documents"),
  Command.withSubcommands([image, root, docs, packPackages])
)

Command.run(release, { version }).pipe(Effect.provide(NodeServices.layer), NodeRuntime.runMain)
