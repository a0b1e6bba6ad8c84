import { assert, describe, it } from "@effect/vitest"
import * as HostsReading from "@spegel-ts/containerd/internal/hosts/HostsReading"
import * as HostsUnion from "@spegel-ts/containerd/internal/hosts/HostsUnion"
import { Option } from "effect"

const up = "http://up:1"
const host = `[host."http://a:1"]`

/** The hosts that each version asks, newest first, then the server or `self`; `-` if it refuses the file. */
const asked = (text: string) =>
  HostsReading.read(text).ways.map(Option.match({
    onNone: () => "-",
    onSome: ({ hosts, server }) => [...hosts.map(({ url }) => url), Option.getOrElse(server, () => "self")].join(" ")
  }))

const alike = (text: string): string | ReadonlyArray<string> => {
  const [first, ...others] = asked(text)
  return others.every((other) => other === first) ? first ?? "" : asked(text)
}

// Measured with containerd's own code of 1.7.24 and 2.1.5, and with daemons of 1.6, 1.7 and 2.1.
describe("HostsReading", () => {
  it.each([
    ["", ["self", "self", "self", "-"]],
    ["[host]\n", "self"],
    [`server = "${up}"\n${host}\n`, `http://a:1 ${up}`],
    [`server = ""\n${host}\n`, "http://a:1 self"],
    [`server = "http://"\n${host}\n`, "http://a:1 self"],
    [`server = "${up}"\n`, [up, up, up, "-"]],
    // In any case for go-toml 2, in capitals for go-toml 1.
    [`Server = "${up}"\n[host]\n`, [up, up, up, "self"]],
    [`SERVER = "${up}"\n[host]\n`, up],
    [`[Host."http://a:1"]\n`, ["self", "self", "self", "-"]],
    [`${host}\nCapabilities = ["frobnicate"]\n`, ["-", "-", "-", "http://a:1 self"]],
    // Hosts in other forms than tables of their own.
    [`server = "${up}"\n[host]\n"http://a:1" = {}\n`, [up, up, up, `http://a:1 ${up}`]],
    [`host."http://a:1".capabilities = ["pull"]\n[host."http://b:1"]\n`, [
      ...Array.from({ length: 3 }, () => "http://b:1 self"),
      "http://a:1 http://b:1 self"
    ]],
    [`[host."http://a:1"]\n[host."http://b:1"]\n[host."http://a:1".header]\nx = "1"\n`, "http://a:1 http://b:1 self"],
    [`[host."http://[::1]:1"]\n`, [...Array.from({ length: 4 }, () => "http://[::1]:1 self"), "-"]],
    // All versions refuse these.
    ...[
      `server = 5\n[host]`,
      `[[host]]`,
      `host = 5`,
      `[host]\n"http://a:1" = 5`,
      `${host}\n${host}`,
      `${host}\na = 1\na = 2`,
      `${host}\nskip_verify = "true"`,
      `${host}\noverride_path = 1`,
      `${host}\nheader = { x = 5 }`,
      `${host}\nca = 5`,
      `${host}\nclient = [["a"]]`,
      `${host}\ncapabilities = "pull"`,
      `${host}\ncapabilities = ["frobnicate"]`,
      `[host."http://a:port"]`,
      `[host."http://a b"]`,
      `server = \n[host]`,
      `note = "\n[host]`,
      `[host`
    ].map((text): [string, string] => [text, "-"]),
    // These depend on the version.
    [`${host}\ncapabilities = ["pull", "referrers"]`, ["http://a:1 self", "-", "-", "-"]],
    [`${host}\ndial_timeout = "soon"`, ["-", "-", "http://a:1 self", "http://a:1 self"]],
    [`${host}\ndial_timeout = 5`, ["-", "-", "http://a:1 self", "http://a:1 self"]],
    [`${host}\ndial_timeout = ""`, "http://a:1 self"],
    [`${host}\n[other]\na = 1\na = 2`, [...Array.from({ length: 4 }, () => "http://a:1 self"), "-"]],
    // Some library may refuse these.
    ...[
      `\xef\xbb\xbf${host}`,
      `# \xe4\n${host}`,
      `# \x1b\n${host}`,
      `${host}\r`,
      `${host} ca = []`,
      `x = {\na = 1 }\n${host}`
    ]
      .map((
        text
      ): [string, ReadonlyArray<string>] => [text, [...Array.from({ length: 4 }, () => "http://a:1 self"), "-"]])
  ] as ReadonlyArray<[string, string | ReadonlyArray<string>]>)("reads %j", (text, expected) => {
    assert.deepStrictEqual(alike(text), expected)
  })

  it("names the reason, and the versions that have it", () => {
    const reasons = (text: string) => HostsReading.read(text).reasons
    assert.deepStrictEqual(reasons(`${host}\nca = 5\n`), ["ca has a value that containerd refuses"])
    assert.deepStrictEqual(reasons(`${host}\ndial_timeout = 5\n`), [
      "dial_timeout has a value that containerd refuses (containerd 2.1, 2.2)"
    ])
    assert.deepStrictEqual(reasons(`a = 1\n\nb = \n${host}\n`), ["line 3: a value is expected"])
    assert.deepStrictEqual(reasons(`${host}\n`), [])
  })

  it("asks in one reading all that one of the versions would ask", () => {
    const of = (text: string) => HostsUnion.union(HostsReading.read(text).ways)
    assert.deepStrictEqual(of(`Server = "${up}"\nca = "x.pem"\n${host}\nCapabilities = ["pull"]\n`), {
      hosts: [{ url: "http://a:1", options: {} }, { url: up, options: { ca: ["x.pem"] } }],
      server: Option.none(),
      options: { ca: ["x.pem"] }
    })
    assert.deepStrictEqual(of(`[host."a/b"]\nOverride_Path = true\ncapabilities = ["referrers"]\n`).hosts, [
      { url: "a/b", options: { capabilities: ["push"], override_path: true } }
    ])
  })
})
