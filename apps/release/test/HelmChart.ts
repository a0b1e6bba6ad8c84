/** Real helm, built from its pinned source once and kept in the user's cache, and what it makes of the chart. */
import { execFile, type ExecFileException } from "node:child_process"
import { existsSync } from "node:fs"
import { copyFile, cp, mkdtemp, rm, writeFile } from "node:fs/promises"
import { homedir, tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { parseAllDocuments } from "yaml"

const helmVersion = "v3.22.0"
const cache = join(homedir(), ".cache", "spegel-ts")
const helm = join(cache, `helm-${helmVersion}`, "helm")
const validator = join(cache, "validate-kubernetes-v0.34.1", "validate")

export const directory = fileURLToPath(new URL("../../../charts/spegel", import.meta.url))

/** Why a test is skipped that needs a program; undefined where the program is there. CI must lack nothing. */
export const missingProgram = (program: string, hint: string): string | undefined => {
  if ((process.env["PATH"] ?? "").split(":").some((path) => existsSync(join(path, program)))) return undefined
  const reason = `needs ${program} (${hint})`
  if (process.env["CI"] === "true") throw new Error(`CI lacks a prerequisite: ${reason}`)
  return reason
}

/** What the tests of the chart need and this machine lacks; undefined where nothing is. */
export const missingPrerequisite = (): string | undefined =>
  existsSync(helm) && existsSync(validator) ? undefined : missingProgram("go", "to build helm")

export interface Finished {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

/** Runs a program to its end, with `input` on its standard input. */
export const run = (
  command: string,
  args: ReadonlyArray<string>,
  options: { readonly input?: string; readonly cwd?: string; readonly env?: Readonly<Record<string, string>> } = {}
): Promise<Finished> =>
  new Promise((resolve, reject) => {
    const { cwd, env, input } = options
    const child = execFile(
      command,
      args,
      { maxBuffer: 64 * 1024 * 1024, cwd, env: { ...process.env, ...env } },
      (error: ExecFileException | null, stdout, stderr) => {
        if (typeof error?.code === "string") return reject(error)
        resolve({ code: error === null ? 0 : error.code ?? 1, stdout, stderr })
      }
    )
    // A program that has ended reads nothing more.
    child.stdin?.on("error", () => undefined)
    child.stdin?.end(input)
  })

const succeed = async (...[command, args, options]: Parameters<typeof run>): Promise<string> => {
  const { code, stderr, stdout } = await run(command, args, options)
  if (code !== 0) throw new Error(`${command} ${args.join(" ")}: ${stderr}`)
  return stdout
}

/** Builds helm and the validator where that was not done before: minutes once, seconds later. */
export const build = async () => {
  if (!existsSync(helm)) {
    await succeed("go", ["install", `helm.sh/helm/v3/cmd/helm@${helmVersion}`], {
      env: { GOBIN: join(cache, `helm-${helmVersion}`) }
    })
  }
  const source = fileURLToPath(new URL("validate", import.meta.url))
  await succeed("go", ["build", "-mod=readonly", "-o", validator, "."], { cwd: source })
}

/** A Kubernetes object; what is looked at in it is said where it is looked at. */
export interface KubernetesObject {
  readonly apiVersion: string
  readonly kind: string
  readonly metadata: {
    readonly name: string
    /** None where the object is the whole cluster's. */
    readonly namespace?: string
    readonly labels: Readonly<Record<string, string>>
    readonly annotations?: Readonly<Record<string, string>>
  }
  // The types of Kubernetes are checked by the validator.
  // oxlint-disable-next-line typescript/no-explicit-any
  readonly [field: string]: any
}

/** Values over the chart's own; those that tests look at have types. */
export interface Values {
  readonly clusterDomain?: string
  readonly cleanup?: {
    readonly enabled?: boolean
    readonly timeoutSeconds?: number
    readonly tolerations?: ReadonlyArray<object>
  }
  readonly clusterKey?: { readonly enabled?: boolean; readonly existingSecret?: string; readonly keep?: boolean }
  readonly peerAuth?: "" | "require" | "prefer" | "off" | false
  readonly shutdown?: { readonly delaySeconds?: number; readonly graceSeconds?: number }
  readonly nodeReadiness?: { readonly enabled: boolean; readonly taint?: string }
  readonly spegel?: {
    readonly bootstrapKinds?: ReadonlyArray<string>
    readonly containerdMirrorAdd?: boolean
    readonly persistence?: { readonly enabled?: boolean; readonly [key: string]: unknown }
    readonly [key: string]: unknown
  }
  readonly [key: string]: unknown
}

export interface Rendering {
  readonly values?: Values
  readonly kubernetes?: string
  readonly release?: string
  /** Further flags of `helm template`, such as `--is-upgrade`. */
  readonly flags?: ReadonlyArray<string>
}

/** Runs a helm command on a chart with values; `release` is the first argument of those that have one. */
export const command = async (
  name: "lint" | "template",
  { flags = [], kubernetes = "1.34.0", release = "spegel", values = {} }: Rendering,
  chart = directory
) => {
  const temporary = await mkdtemp(join(tmpdir(), "spegel-chart-"))
  try {
    // JSON is YAML, and has no word that helm takes for a boolean.
    const file = join(temporary, "values.json")
    await writeFile(file, JSON.stringify(values))
    const positional = name === "lint" ? [chart] : [release, chart, "--namespace", "mirrors", ...flags]
    return await run(helm, [name, ...positional, "--kube-version", kubernetes, "--values", file])
  } finally {
    await rm(temporary, { recursive: true })
  }
}

/** The objects that helm would create, its hooks among them. */
export const render = async (
  rendering: Rendering = {},
  chart = directory
): Promise<ReadonlyArray<KubernetesObject>> => {
  const { code, stderr, stdout } = await command("template", rendering, chart)
  if (code !== 0) throw new Error(stderr)
  return parseAllDocuments(stdout).map((document) => {
    if (document.errors.length > 0) throw document.errors[0] ?? new Error("no YAML")
    return document.toJS() as KubernetesObject | null
  }).filter((object) => object !== null)
}

/** An object that has the text of the file `notes.txt`, as helm would print it. */
const notesObject = `apiVersion: v1
kind: ConfigMap
metadata:
  name: rendered-notes
data:
  notes: {{ tpl (.Files.Get "notes.txt") . | toJson }}
`

/** What helm prints after an installation. It renders notes by themselves only for a cluster, so they are made an object. */
export const notes = async (rendering: Rendering = {}): Promise<string> => {
  const temporary = await mkdtemp(join(tmpdir(), "spegel-notes-"))
  try {
    await cp(directory, temporary, { recursive: true })
    await copyFile(join(directory, "templates", "NOTES.txt"), join(temporary, "notes.txt"))
    await writeFile(join(temporary, "templates", "rendered-notes.yaml"), notesObject)
    const objects = await render(rendering, temporary)
    const found = objects.find(({ metadata }) => metadata.name === "rendered-notes")
    if (found === undefined) throw new Error("helm rendered no notes")
    return String(found["data"].notes)
  } finally {
    await rm(temporary, { recursive: true })
  }
}

/** Decodes objects strictly into Kubernetes' own types. */
export const validate = (objects: ReadonlyArray<KubernetesObject>): Promise<Finished> =>
  run(validator, [], { input: objects.map((object) => JSON.stringify(object)).join("\n---\n") })
