import { assert, describe, it } from "@effect/vitest"
import * as HostsBlocks from "@spegel-ts/containerd/internal/hosts/HostsBlocks"
import * as HostsToml from "@spegel-ts/containerd/internal/hosts/HostsToml"
import { Effect, Option, Result, Schema } from "effect"
import { isUtf8 } from "node:buffer"
import { parse, type TomlTable } from "smol-toml"

const url = "http://127.0.0.1:5000"
const mirror: HostsToml.Mirror = {
  targets: [url],
  additional: [],
  tagResolution: "mirror",
  authorization: Option.none()
}
const untouched: HostsBlocks.Undo = { made: Option.none(), mode: Option.none() }
const options: HostsToml.InstallOptions = {
  mirror,
  upstream: {
    server: Option.none(),
    self: Option.some({ url: "https://registry.example", options: {} }),
    hosts: ["registry.example"],
    certificates: { all: {}, loadable: {} }
  },
  prependExisting: true,
  undo: untouched
}

const installed = (text: string, changes: Partial<HostsToml.InstallOptions> = {}) =>
  Result.getOrThrow(HostsToml.install(text, { ...options, ...changes }))
const install = (text: string, changes: Partial<HostsToml.InstallOptions> = {}) => installed(text, changes).text
const restore = (text: string) => Option.getOrThrow(Result.getOrThrow(HostsBlocks.restore(text)))
const hostsOf = (text: string) => Object.entries((parse(text)["host"] ?? {}) as Record<string, TomlTable>)
const urlsOf = (text: string) => hostsOf(text).map(([url]) => url)
const capabilitiesOf = (text: string) => hostsOf(text).map(([url, { capabilities }]) => [url, capabilities])

const foreign = `# kept by the platform team
server = "https://registry.example" # theirs
ca = ["/etc/ca.pem"]
note = """
[host."not a table"]
"""
client = [
  ["/etc/cert.pem", "/etc/key.pem"]
]

[host."https://cache.example"] # first
  capabilities = ["pull"]
[host."https://cache.example".header]
  x-team = ["platform"]

[header]
  x-server = ["1"]

[host."https://registry.example"]
`

describe("HostsToml", () => {
  it("puts the mirror behind the root keys and in front of other hosts", () => {
    const toml = parse(install(foreign))
    assert.strictEqual(toml["server"], "https://registry.example")
    assert.deepStrictEqual(toml["ca"], ["/etc/ca.pem"])
    assert.deepStrictEqual(toml["client"], [["/etc/cert.pem", "/etc/key.pem"]])
    assert.deepStrictEqual(urlsOf(install(foreign)), [url, "https://cache.example", "https://registry.example"])
  })

  it("lets containerd wait for no mirror that does not take the connection", () => {
    const targets = [url, "http://10.0.0.9:5000"]
    const hosts = new Map(hostsOf(install(foreign, { mirror: { ...mirror, targets } })))
    for (const target of targets) assert.strictEqual(hosts.get(target)?.["dial_timeout"], "200ms")
    assert.notProperty(hosts.get("https://cache.example"), "dial_timeout")
  })

  it("suspends other mirrors where it is to be alone, but neither the registry itself nor options of the server", () => {
    const text = install(foreign, { prependExisting: false })
    assert.deepStrictEqual(urlsOf(text), [url, "https://registry.example"])
    assert.deepStrictEqual(parse(text)["header"], { "x-server": ["1"] })
    assert.include(text, `#| [host."https://cache.example"] # first`)
  })

  it("knows the registry itself with the port that its scheme has anyway", () => {
    const upstream = { ...options.upstream, hosts: ["registry.example:80"] }
    const text = `[host."http://registry.example:80"]\n[host."http://registry.example:8080"]\n`
    assert.deepStrictEqual(urlsOf(install(text, { prependExisting: false, upstream })), [
      url,
      "http://registry.example:80"
    ])
  })

  it("suspends hosts in files of any line ends", () => {
    assert.deepStrictEqual(urlsOf(install(foreign.replaceAll("\n", "\r\n"), { prependExisting: false })), [
      url,
      "https://registry.example"
    ])
  })

  it("names a server where it is told one and the file does not", () => {
    const upstream = { ...options.upstream, server: Option.some("http://registry.example") }
    assert.strictEqual(parse(install("", { upstream }))["server"], "http://registry.example")
    const withHost = install(`[host."https://cache.example"]\n`, { prependExisting: false, upstream })
    assert.strictEqual(parse(withHost)["server"], "http://registry.example")
    assert.strictEqual(parse(install(foreign, { upstream }))["server"], "https://registry.example")
    assert.deepStrictEqual(Object.keys(parse(install(""))), ["host"])
  })

  it("asks for tags as it is told", () => {
    const withTags = (tagResolution: HostsToml.TagResolution) =>
      capabilitiesOf(install("", { mirror: { ...mirror, tagResolution } }))
    assert.deepStrictEqual(withTags("mirror"), [[url, ["pull", "resolve"]]])
    assert.deepStrictEqual(withTags("never"), [[url, ["pull"]]])
    assert.deepStrictEqual(withTags("upstream-first"), [
      [url, ["pull"]],
      ["https://registry.example", ["pull", "resolve"]],
      [`${url}/`, ["pull", "resolve"]]
    ])
  })

  it("asks upstream for tags as the file's server is asked, after the hosts that the file has", () => {
    const first = { ...mirror, tagResolution: "upstream-first" as const }
    const text = foreign.replace(/\[host."https:\/\/registry.example"\]\n/, "")
    const hosts = hostsOf(install(text, { mirror: first }))
    assert.deepStrictEqual(hosts.map(([url]) => url), [
      url,
      "https://cache.example",
      "https://registry.example",
      `${url}/`
    ])
    assert.deepStrictEqual(hosts[2]?.[1], {
      capabilities: ["pull", "resolve"],
      dial_timeout: "5s",
      ca: ["/etc/ca.pem"],
      client: [["/etc/cert.pem", "/etc/key.pem"]],
      header: { "x-server": ["1"] }
    })
    assert.deepStrictEqual(urlsOf(install(foreign, { mirror: first })).slice(-2), [
      "https://registry.example",
      `${url}/`
    ])
    assert.isTrue(Result.isFailure(HostsToml.install("", {
      ...options,
      mirror: first,
      upstream: { ...options.upstream, self: Option.none() }
    })))
  })

  it("has all targets in their order, with credentials", () => {
    const targets = [url, "http://registry.example:30020"]
    const text = install("", { mirror: { ...mirror, targets, authorization: Option.some(`Basic "x"`) } })
    assert.deepStrictEqual(urlsOf(text), targets)
    assert.deepStrictEqual(hostsOf(text).map(([, { header }]) => header), [
      { authorization: [`Basic "x"`] },
      { authorization: [`Basic "x"`] }
    ])
  })

  it("gives no credentials to mirrors that are not of this cluster", () => {
    const additional = ["https://cache.example", "http://[fd00::1]:5000"]
    for (const tagResolution of ["mirror", "upstream-first"] as const) {
      const text = install("", {
        mirror: { ...mirror, additional, tagResolution, authorization: Option.some("Basic x") }
      })
      const hosts = hostsOf(text).filter(([host]) => host !== "https://registry.example")
      assert.includeMembers(hosts.map(([host]) => host), [url, ...additional])
      for (const [host, { header }] of hosts) {
        const expected = host.startsWith(url) ? { authorization: ["Basic x"] } : undefined
        assert.deepStrictEqual(header, expected, `${host} with ${tagResolution}`)
      }
    }
  })

  it("names an IPv6 address where containerd 1.x reads it, and where 2.x does", () => {
    const targets = ["http://[fd00::1]:30020", url]
    const text = install("", { mirror: { ...mirror, targets, authorization: Option.some("Basic x") } })
    assert.include(text, `[host]\n"http://[fd00::1]:30020/v2".capabilities = ["pull", "resolve"]\n`)
    assert.include(text, `[host."http:\\u002f\\u002f\\u005bfd00::1\\u005d:30020"]\n`)
    assert.deepStrictEqual(
      hostsOf(text),
      [targets[0] + "/v2", ...targets].map((url) => [url, {
        capabilities: ["pull", "resolve"],
        dial_timeout: "200ms",
        header: { authorization: ["Basic x"] }
      }])
    )
  })

  it("stands in front of hosts in any form, and says them in one that all versions read", () => {
    const inline = `server = "https://registry.example"\n[host]\n"https://cache.example" = { skip_verify = true }\n`
    const text = install(inline)
    assert.deepStrictEqual(urlsOf(text), [url, "https://cache.example", "https://registry.example"].slice(0, 2))
    assert.deepStrictEqual(hostsOf(text)[1], ["https://cache.example", { skip_verify: true }])
    assert.strictEqual(restore(text).text, inline)
    assert.deepStrictEqual(urlsOf(install(inline, { prependExisting: false })), [url])
    const dotted = `host."https://cache.example".capabilities = ["Pull"]\n`
    assert.deepStrictEqual(capabilitiesOf(install(dotted)), [
      [url, ["pull", "resolve"]],
      ["https://cache.example", ["pull"]]
    ])
  })

  it("asks what some versions take from a text that others refuse, then the registry itself", () => {
    const text = `\xef\xbb\xbf# Ger\xe4t\nServer = "http://cache.example"\nca = "x.pem"\n[host]\n`
    const certificates = { all: { ca: ["all.crt"] }, loadable: { ca: ["loadable.crt"] } }
    const toml = parse(install(text, { upstream: { ...options.upstream, certificates } }))
    assert.deepStrictEqual(toml["host"], {
      [url]: { capabilities: ["pull", "resolve"], dial_timeout: "200ms" },
      "http://cache.example": { ca: ["x.pem"] }
    })
    assert.deepStrictEqual([toml["server"], toml["ca"]], [undefined, ["x.pem", "loadable.crt"]])
    // No version takes this one; all take the certificates.
    const refused = parse(install(`server = 5\n[host]\n`, { upstream: { ...options.upstream, certificates } }))
    assert.deepStrictEqual([Object.keys(refused["host"] as TomlTable), refused["ca"]], [[url], ["all.crt"]])
  })

  it("does not let a file that containerd ignores make it ignore the mirror", () => {
    for (
      const text of [
        "server = ",
        `[host."https://a"]\n[host."https://a"]`,
        `[host."https://a"]\ncapabilities = ["puII"]`,
        "\xff\0"
      ]
    ) {
      const installed = install(text)
      assert.deepStrictEqual(urlsOf(installed), [url], text)
      assert.strictEqual(restore(installed).text, text)
    }
  })

  it("refuses what it cannot stand in front of, and says why", () => {
    const upstreamFirst = HostsToml.install(`[host."https://cache.example"]\n`, {
      ...options,
      mirror: { ...mirror, tagResolution: "upstream-first" },
      upstream: { ...options.upstream, self: Option.none() }
    })
    assert.include(Option.getOrThrow(Result.getFailure(upstreamFirst)).reason, "does not name an upstream")
    const text = install(foreign)
    assert.isTrue(Result.isFailure(HostsBlocks.restore(text.replace("# spegel-ts: end\n", ""))))
  })

  it("tells what else to undo", () => {
    const undo = { made: Option.some("directory" as const), mode: Option.some(0o644) }
    assert.deepStrictEqual(restore(install("", { undo })), { text: "", undo })
    assert.deepStrictEqual(restore(install(foreign, { prependExisting: false })), { text: foreign, undo: untouched })
    assert.isTrue(Option.isNone(Result.getOrThrow(HostsBlocks.restore(foreign))))
  })

  // Pieces of a file in any order: what containerd takes, and with `broken` what it does not.
  const file = Schema.Struct({
    root: Schema.Array(Schema.Literals([
      `server = "https://registry.example"`,
      `ca = ["/a.pem"] # [host."https://in.a.comment"]`,
      `client = [\n  ["/cert", "/key"]\n]`,
      `note = """\n[host."https://in.a.string"]\n"""`,
      `#| looks suspended`,
      `# spegel-ts is not a mark`,
      ""
    ])),
    tables: Schema.Array(Schema.Literals([
      `[host."https://cache.example"]\n  capabilities = ["pull"]`,
      `  [host."https://other.example".header] # with a comment\nx = ["1"]`,
      `[host."https://other.example"]`,
      `[host."https://registry.example"]\ncapabilities = [\n  "pull",\n  "resolve"\n]`,
      `[header]\n\nx = ["1"]`
    ])),
    broken: Schema.Array(Schema.Literals([`server = `, `]`, `"""`, "\xe4\xff", "\0", "a\rb"])),
    isBroken: Schema.Boolean,
    end: Schema.Literals(["\n", "\r\n"]),
    isEnded: Schema.Boolean
  })
  const textOf = ({ broken, end, isBroken, isEnded, root, tables }: typeof file.Type) => {
    const pieces = [...new Set(root), ...new Set(tables), ...(isBroken ? broken : [])]
    return pieces.join("\n").replaceAll("\n", end) + (isEnded ? end : "")
  }
  /** Hosts that containerd would ask for the text alone; none where it would ignore it. */
  const foreignHosts = (text: string) =>
    isUtf8(Buffer.from(text, "latin1")) ? Result.getOrElse(Result.try(() => urlsOf(text)), () => []) : []
  const isForeign = (other: string) => !other.startsWith(url) && other !== "https://registry.example"

  it.effect.prop("gives back any text to the byte", [
    file,
    Schema.Boolean,
    Schema.Literals(["mirror", "upstream-first", "never"])
  ], ([written, prependExisting, tagResolution]) =>
    Effect.sync(() => {
      const text = textOf(written)
      const changes = { prependExisting, mirror: { ...mirror, tagResolution } }
      const installed = install(text, changes)
      assert.strictEqual(restore(installed).text, text)
      assert.strictEqual(install(restore(installed).text, changes), installed)
      assert.strictEqual(urlsOf(installed)[0], url)
      assert.deepStrictEqual(
        urlsOf(installed).filter(isForeign),
        prependExisting ? foreignHosts(text).filter(isForeign) : []
      )
    }), { arbitrary: { runs: 500 } })
})
