import { assert, beforeAll, describe, it } from "@effect/vitest"
import * as OciLayoutWriter from "@spegel-ts/content/OciLayoutWriter"
import * as Reference from "@spegel-ts/oci/Reference"
import * as ImageDefinition from "@spegel-ts/release/ImageDefinition"
import * as ContainerdDaemon from "@spegel-ts/testing/containerd/ContainerdDaemon"
import * as ContainerdPackages from "@spegel-ts/testing/containerd/ContainerdPackages"
import * as RandomImage from "@spegel-ts/testing/content/RandomImage"
import * as InProcess from "@spegel-ts/testing/node/InProcess"
import * as Command from "@spegel-ts/testing/process/Command"
import { temporary } from "@spegel-ts/testing/TemporaryDirectory"
import { Effect, Fiber, Result, Schedule } from "effect"
import { execFile, spawn } from "node:child_process"
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import * as HelmChart from "../HelmChart.ts"
import * as Hosts from "./Hosts.ts"
import * as PodRunner from "./PodRunner.ts"

const repository = fileURLToPath(new URL("../../../..", import.meta.url))
const missing = ContainerdDaemon.missingPrerequisite("docker-registry", "skopeo") ?? HelmChart.missingPrerequisite()
const registryPort = 30_020
const mebibyte = 1024 * 1024
/** The thread that moves bodies takes 10 to 12 MiB of it. */
const maxIdleMiB = 120

/** A figure of the image, beside what it must not exceed. */
const tell = (name: string, value: number, bound: number, unit: string) =>
  process.stdout.write(
    `${value <= bound ? "met   " : "MISSED"}  ${name.padEnd(60)}  ${value.toFixed(1)} ${unit} (at most ${bound})\n`
  )

/** `npm run image`, with its two outputs. */
const buildImage = (output: string) =>
  Command.run(process.execPath, [
    "--conditions=@spegel-ts/source",
    join(repository, "apps/release/src/main.ts"),
    "image",
    `--output=${output}`
  ])

/** A registry on a host, until the scope is closed or it is ended. */
const startUpstream = Effect.fnUntraced(function*(host: Hosts.Host, directory: string) {
  const config = join(directory, "registry.yml")
  const address = `${host.address}:5000`
  yield* Effect.promise(() =>
    writeFile(
      config,
      `version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: ${directory}/registry}}\nhttp: {addr: "${address}"}\n`
    )
  )
  const [program, args] = host.command("docker-registry", "serve", config)
  const child = yield* Effect.acquireRelease(
    Effect.sync(() => spawn(program, args, { stdio: "ignore" })),
    (child) => Effect.sync(() => child.kill("SIGKILL"))
  )
  return { address, end: Effect.sync(() => child.kill("SIGKILL")) }
})

/** Pushes an image of noise, once the registry answers. */
const push = Effect.fnUntraced(function*(host: Hosts.Host, directory: string, name: string) {
  const root = join(directory, "layout")
  const writer = yield* OciLayoutWriter.make({ root })
  const reference = Result.getOrThrow(Reference.parse(name))
  yield* RandomImage.write({ writer, reference, layerSizes: Array.from({ length: 3 }, () => 16 * mebibyte) })
  const copy = ["copy", "--quiet", "--dest-tls-verify=false", `oci:${root}:${name}`, `docker://${name}`]
  const [program, args] = host.command("skopeo", ...copy)
  yield* Command.run(program, args).pipe(
    Effect.retry({ schedule: Schedule.spaced("100 millis"), times: 50 })
  )
  yield* Effect.promise(() => rm(root, { recursive: true }))
})

/** Asks until the answer is 200, and tells when that was. Runs on the host that it asks. */
const poll = `
const [url, authorization] = process.argv.slice(1)
const headers = authorization === undefined ? {} : { authorization }
const ask = () => fetch(url, { headers }).then((response) => response.ok, () => false)
while (!(await ask())) await new Promise((resolve) => setTimeout(resolve, 5))
console.log(Date.now())
`

/** Waits until a host's URL answers 200; gives the time of it in milliseconds. */
const untilOk = (host: Hosts.Host, url: string, ...authorization: ReadonlyArray<string>) => {
  const [program, args] = host.command(process.execPath, "--input-type=module", "--eval", poll, url, ...authorization)
  return Command.run(program, args).pipe(Effect.map(Number), Effect.timeout("60 seconds"))
}

/** A mirror's last requests, as its debug page has them. */
const requestsOf = (host: Hosts.Host) => {
  const show = `console.log(await (await fetch("http://127.0.0.1:9090/debug/pulls")).text())`
  const [program, args] = host.command(process.execPath, "--input-type=module", "--eval", show)
  return Effect.timeout(Command.run(program, args), "10 seconds")
}

/** The files of the Secret with the cluster key, readable as the chart says. */
const makeSecret = Effect.fnUntraced(function*(directory: string) {
  yield* Effect.promise(() => mkdir(directory))
  yield* InProcess.run(["cluster-key", "generate", "--output", join(directory, "key")])
  yield* Effect.promise(() => chmod(join(directory, "key"), 0o440))
})

/** What a node's containerd sends to its mirror. */
const authorizationIn = async (certs: string) => {
  const [name = ""] = await readdir(certs)
  const text = await readFile(join(certs, name, "hosts.toml"), "utf8")
  return /^authorization = \["(Bearer v1\.[^"]+)"\]$/m.exec(text)?.[1] ?? assert.fail(text)
}

/** A node: containerd, and the mirror as the chart says, in the image. */
const startNode = Effect.fnUntraced(function*(host: Hosts.Host, first: Hosts.Host, options: {
  readonly image: string
  readonly upstream: string
  /** Directory of the Secret's files. */
  readonly secret: string
}) {
  const { image, secret, upstream } = options
  const directory = yield* temporary
  const programs = yield* ContainerdPackages.fetch("1.7")
  const containerd = yield* ContainerdDaemon.start({ programs })
  yield* containerd.ctr("images", "import", "--snapshotter", "native", image)
  const certs = join(directory, "certs.d")
  const data = join(directory, "data")
  const objects = yield* Effect.promise(() =>
    HelmChart.render({
      values: {
        service: { registry: { port: registryPort, nodePort: registryPort } },
        spegel: {
          containerdSock: containerd.socket,
          containerdContentPath: containerd.contentPath,
          containerdRegistryConfigPath: certs,
          persistence: { path: data, hostPath: data },
          mirroredRegistries: [`http://${upstream}`],
          // There is no DNS here.
          bootstrapKinds: ["static"],
          extraArgs: [`--static-bootstrap-peers=${first.address}:5001`]
        }
      }
    })
  )
  const pods = objects.filter(({ kind }) => kind === "DaemonSet").map(({ spec }) => spec.template.spec as PodRunner.Pod)
  const [pod, cleanup] = pods
  if (pod === undefined || cleanup === undefined) return yield* Effect.die(new Error("the chart has no pods"))
  const { entrypoint } = yield* ImageDefinition.load
  const node = { host, entrypoint, secrets: { "spegel-cluster-key": secret }, ctr: containerd.ctr }
  yield* PodRunner.prepare(node, pod)
  const mirror = yield* PodRunner.create(node, pod)
  const ready = yield* Effect.forkScoped(untilOk(host, `http://${host.address}:${registryPort}/readyz`))
  // The poller has to be there before what it waits for.
  yield* Effect.sleep("500 millis")
  const startedAt = Date.now()
  yield* mirror.start
  const readyAt = yield* Fiber.join(ready)
  // utime and stime in hundredths of a second (proc(5)): what a busy machine does not stretch.
  const pid = yield* mirror.pid
  const fields = (yield* Effect.promise(() => readFile(`/proc/${pid}/stat`, "utf8"))).split(" ")
  const cpuSeconds = (Number(fields[13]) + Number(fields[14])) / 100
  const status = Effect.promise(() => readFile(`/proc/${pid}/status`, "utf8"))
  const ctrOnHost = (...args: ReadonlyArray<string>) => {
    const [program, all] = host.command(programs.ctr, "--address", containerd.socket, "--namespace", "k8s.io", ...args)
    return Command.run(program, all)
  }
  return {
    ...node,
    certs,
    data,
    cleanup,
    containerd,
    mirror,
    readyMillis: readyAt - startedAt,
    cpuSeconds,
    pull: (name: string) =>
      ctrOnHost("images", "pull", "--hosts-dir", certs, "--snapshotter", "native", name).pipe(Effect.timeoutOrElse({
        duration: "60 seconds",
        orElse: () =>
          Effect.flatMap(
            requestsOf(host),
            (requests) => Effect.die(new Error(`the pull of ${name} hangs: ${requests}`))
          )
      })),
    status,
    rssMiB: Effect.map(status, (text) => Number(/^VmRSS:\s+(\d+)/m.exec(text)?.[1]) / 1024)
  }
})

describe.skipIf(missing !== undefined)(`the image${missing === undefined ? "" : ` (skipped: ${missing})`}`, () => {
  let directory = ""
  let image = ""
  beforeAll(async () => {
    await promisify(execFile)("npm", ["run", "bundle"], { cwd: repository })
    await HelmChart.build()
    directory = await mkdtemp(join(tmpdir(), "spegel-image-"))
    image = join(directory, "image.tar")
    await Effect.runPromise(buildImage(image))
    return () => rm(directory, { recursive: true })
  }, 900_000)

  it.live("is the same bytes each time it is built", () =>
    Effect.gen(function*() {
      const again = join(directory, "again.tar")
      yield* buildImage(again)
      const [first, second] = yield* Effect.promise(() => Promise.all([image, again].map((path) => readFile(path))))
      assert.isTrue(first?.equals(second ?? Buffer.alloc(0)))
    }), 120_000)

  it.live("has nothing that its user can write, runs as no root, and is small", () =>
    Effect.gen(function*() {
      const unpacked = yield* temporary
      yield* Command.run("skopeo", ["copy", "--quiet", `oci-archive:${image}`, `dir:${unpacked}/dir`])
      const manifest = JSON.parse(yield* Effect.promise(() => readFile(join(unpacked, "dir/manifest.json"), "utf8")))
      let [pulled, bytes] = [0, 0]
      for (const { digest, size } of manifest.layers) {
        const layer = join(unpacked, "dir", digest.replace("sha256:", ""))
        const listing = yield* Command.run("tar", ["--list", "--verbose", "--numeric-owner", "--file", layer])
        for (const line of listing.trim().split("\n")) {
          const [mode = "", owner, length] = line.split(/\s+/)
          assert.match(mode, /^-r[-w]-r-[-x]r-[-x]$|^-r-xr-xr-x$/, line)
          assert.notInclude(mode.slice(4), "w", line)
          assert.strictEqual(owner, "0/0", line)
          bytes += Number(length)
        }
        pulled += size
      }
      const config = JSON.parse(
        yield* Effect.promise(() => readFile(join(unpacked, "dir", manifest.config.digest.slice(7)), "utf8"))
      )
      const definition = yield* ImageDefinition.load
      assert.strictEqual(config.config.User, "65532:0")
      assert.deepStrictEqual(config.config.Entrypoint, definition.entrypoint)
      tell("size of the image, unpacked", bytes / 1e6, 150, "MB")
      tell("size of the image, as pulled", pulled / 1e6, 150, "MB")
      assert.isBelow(bytes, 150e6)
    }))

  it.live(
    "serves a pull to a second node under containerd, with what the chart gives it, and leaves nothing behind",
    () =>
      Effect.gen(function*() {
        const scratch = yield* temporary
        const [hub, one, two] = yield* Hosts.make(3)
        if (hub === undefined || one === undefined || two === undefined) return assert.fail("three hosts")
        const upstream = yield* startUpstream(hub, scratch)
        const name = `${upstream.address}/team/app:v1`
        yield* push(hub, scratch, name)

        const secret = join(scratch, "secret")
        yield* makeSecret(secret)
        const options = { image, secret, upstream: upstream.address }
        const first = yield* startNode(one, one, options)
        const second = yield* startNode(two, one, options)
        for (const { status } of [first, second]) {
          const text = yield* status
          assert.match(text, /^Uid:\t65532\t65532/m)
          assert.match(text, /^Gid:\t0\t0/m)
          assert.match(text, /^CapEff:\t0+$/m)
          assert.match(text, /^CapBnd:\t0+$/m)
          assert.match(text, /^NoNewPrivs:\t1$/m)
          assert.match(text, /^Seccomp:\t2$/m)
        }
        yield* Effect.sleep("20 seconds")
        const idle = yield* second.rssMiB

        // containerd makes its socket anew; the mirror has to see that image of it nevertheless.
        yield* first.containerd.restart
        yield* first.pull(name)
        const authorization = yield* Effect.promise(() => authorizationIn(second.certs))
        const manifest = `/v2/team/app/manifests/v1?ns=${encodeURIComponent(upstream.address)}`
        yield* untilOk(two, `http://${two.address}:${registryPort}${manifest}`, authorization)
        yield* upstream.end
        yield* second.pull(name)
        assert.include(yield* second.ctr("images", "ls", "-q"), name)

        yield* Effect.sleep("20 seconds")
        tell("from start to ready, the first node", first.readyMillis / 1000, 1.5, "s")
        tell("from start to ready, a node of a network", second.readyMillis / 1000, 1.5, "s")
        tell("processor time until ready, a node of a network", second.cpuSeconds, 1.5, "s")
        tell("RSS of an idle mirror", idle, maxIdleMiB, "MiB")
        tell("RSS of a mirror 20 s after it has relayed a pull of 48 MiB", yield* second.rssMiB, 128, "MiB")
        assert.isBelow(idle, maxIdleMiB)

        assert.strictEqual(yield* first.mirror.stop, 0)
        const directories = Effect.promise(() => Promise.all([first.data, first.certs].map((path) => readdir(path))))
        assert.deepStrictEqual((yield* directories).map(({ length }) => length), [2, 1])
        yield* PodRunner.prepare(first, first.cleanup)
        const cleanup = yield* PodRunner.create(first, first.cleanup)
        yield* cleanup.start
        yield* untilOk(one, `http://${one.address}:8080/healthz`)
        assert.deepStrictEqual(yield* directories, [[], []])
        assert.strictEqual(yield* cleanup.stop, 0)
      }),
    300_000
  )
})
