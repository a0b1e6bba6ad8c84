/** Directories of hosts.toml files as clusters have them before the mirror is installed. */
import { execFileSync } from "node:child_process"
import {
  chmodSync,
  chownSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  symlinkSync,
  writeFileSync
} from "node:fs"
import { dirname, join } from "node:path"
import * as HostsTexts from "./HostsTexts.ts"

export interface StartingState {
  readonly name: string
  /** Whether only `registry` is mirrored; else all are. */
  readonly only?: boolean
  /** Whether the mirror can be configured. Default true. */
  readonly isMirrored?: boolean
  /**
   * Makes the state in an empty directory, of which `certs.d` is the config path. `upstream` is the URL at which the
   * registry's images are; default: its own, over http.
   */
  readonly make: (directory: string, registry: string, upstream?: string) => void
  /** Changes what `make` made, as another program may have; a clean-up has to restore what `make` made. */
  readonly before?: (directory: string, registry: string, upstream?: string) => void
}

const write = (path: string, text: string, mode = 0o644) => {
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(path, Buffer.from(text, "latin1"))
  chmodSync(path, mode)
}

const certs = (directory: string, ...path: ReadonlyArray<string>) => join(directory, "certs.d", ...path)
const withPort = (registry: string) => registry.replace(/^(.+):(\d+)$/, "$1_$2_")

/** A valid one: containerd reads certificates even for http. */
const certificate = `-----BEGIN CERTIFICATE-----
MIIBdDCCARugAwIBAgIUaoKnEQR4L81IXrKsjAopPp54/T4wCgYIKoZIzj0EAwIw
DzENMAsGA1UEAwwEdGVzdDAgFw0yNjExMjUwMTIxNTlaGA8yMTI2MTEwMTAxMjE1
OVowDzENMAsGA1UEAwwEdGVzdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABAQx
v/FjZhsW0JyKhmCzjGIRAouXGpNP6HwQ95FWi9gVy6ycxNjOTM6GEYMwXSVpRVSx
Yy79hcLH9kOix2IGMdajUzBRMB0GA1UdDgQWBBR7xlM/OVq0BhlxvCv9xtEGAius
/TAfBgNVHSMEGDAWgBR7xlM/OVq0BhlxvCv9xtEGAius/TAPBgNVHRMBAf8EBTAD
AQH/MAoGCCqGSM49BAMCA0cAMEQCIHHo3zfdMhlXD2Vnkxuo289S9LhV5ruxDjh9
D6p9dv4rAiAmlgojZnjOdl/eHL8M7JQ0ueMHh/CEYhRk6/Z5oNYxTQ==
-----END CERTIFICATE-----
`

const hosts = (registry: string, upstream = `http://${registry}`) =>
  `# kept by the platform team\nserver = "${upstream}"\n\n` +
  `[host."http://127.0.0.1:9"] # a cache that is down\n  capabilities = ["pull", "resolve"]\n`

/** A directory as Go Spegel leaves it, with its own file for `registry` or for all. */
const spegel = (
  directory: string,
  name: string,
  registry: string,
  prepended: string,
  upstream = `http://${registry}`
) => {
  const moved = readdirSync(certs(directory))
  mkdirSync(certs(directory, "_backup"))
  for (const entry of moved) renameSync(certs(directory, entry), certs(directory, "_backup", entry))
  const server = name === "_default" ? "" : `server = '${upstream}'\n`
  write(
    certs(directory, name, "hosts.toml"),
    `${server}\n[host.'http://127.0.0.1:9']\ncapabilities = ['pull', 'resolve']\ndial_timeout = '200ms'${prepended}`
      .trim()
  )
}

/** States of the file system. */
export const shapes: ReadonlyArray<StartingState> = [
  { name: "no directory", make: () => {} },
  { name: "no directory, one registry", only: true, make: () => {} },
  { name: "an empty directory", make: (directory) => mkdirSync(certs(directory)) },
  {
    name: "a file with comments",
    only: true,
    make: (directory, registry, upstream) =>
      write(certs(directory, withPort(registry), "hosts.toml"), hosts(registry, upstream))
  },
  {
    name: "certificates alone",
    make: (directory, registry) => {
      write(certs(directory, withPort(registry), "ca.crt"), certificate)
    }
  },
  {
    name: "a _default of its own",
    make: (directory) => write(certs(directory, "_default", "hosts.toml"), `[host."http://127.0.0.1:9"]\n`)
  },
  {
    name: "a registry's file beside _default",
    make: (directory, registry, upstream) => {
      write(certs(directory, "_default", "hosts.toml"), `[host."http://127.0.0.1:9"]\n`)
      write(certs(directory, withPort(registry), "hosts.toml"), hosts(registry, upstream))
    }
  },
  {
    name: "a file that is read-only and another's",
    only: true,
    make: (directory, registry, upstream) => {
      const path = certs(directory, withPort(registry), "hosts.toml")
      write(path, hosts(registry, upstream), 0o440)
      if (process.getuid?.() === 0) chownSync(path, 1000, 1000)
    }
  },
  {
    name: "a registry's directory without anything in it",
    make: (directory, registry) => mkdirSync(certs(directory, withPort(registry)), { recursive: true })
  },
  {
    name: "a directory that is a link",
    only: true,
    make: (directory, registry, upstream) => {
      write(join(directory, "shared", "hosts.toml"), hosts(registry, upstream))
      mkdirSync(certs(directory))
      symlinkSync("../shared", certs(directory, withPort(registry)))
    }
  },
  {
    name: "a file that is a link",
    make: (directory, registry, upstream) => {
      write(join(directory, "shared.toml"), hosts(registry, upstream))
      mkdirSync(certs(directory, withPort(registry)), { recursive: true })
      symlinkSync("../../shared.toml", certs(directory, withPort(registry), "hosts.toml"))
    }
  },
  {
    name: "a config path that is a link",
    make: (directory, registry, upstream) => {
      write(join(directory, "elsewhere", withPort(registry), "hosts.toml"), hosts(registry, upstream))
      symlinkSync("elsewhere", certs(directory))
    }
  },
  {
    name: "a directory with the port behind a colon",
    only: true,
    make: (directory, registry, upstream) => write(certs(directory, registry, "hosts.toml"), hosts(registry, upstream))
  },
  {
    name: "arrays over several lines, CRLF, no end of line",
    make: (directory, registry, upstream) => {
      write(certs(directory, withPort(registry), "ca.crt"), certificate)
      write(
        certs(directory, withPort(registry), "hosts.toml"),
        `server = "${
          upstream ?? `http://${registry}`
        }"\r\nca = [\r\n  "ca.crt"\r\n]\r\n\r\n[host."http://127.0.0.1:9"]\r\ncapabilities = [\r\n  "pull"\r\n]`
      )
    }
  },
  {
    name: "several registries and files of others",
    make: (directory, registry, upstream) => {
      write(certs(directory, withPort(registry), "hosts.toml"), hosts(registry, upstream))
      write(certs(directory, withPort(registry), "more", "ca.pem"), "x")
      write(certs(directory, "docker.io", "hosts.toml"), `server = "https://registry-1.docker.io"`)
      write(certs(directory, "ghcr.io", "ca.crt"), "x")
      write(certs(directory, "not a registry", "hosts.toml"), "x")
      write(certs(directory, "README"), "x", 0o400)
      write(certs(directory, ".hidden", "hosts.toml"), "x")
    }
  },
  {
    name: "an installation of Go Spegel",
    make: (directory, registry, upstream) => {
      write(certs(directory, withPort(registry), "hosts.toml"), hosts(registry, upstream))
      write(certs(directory, "README"), "x")
    },
    before: (directory, registry, upstream) => spegel(directory, "_default", registry, "", upstream)
  },
  {
    name: "an installation of Go Spegel with --prepend-existing",
    only: true,
    make: (directory, registry, upstream) => {
      write(certs(directory, registry, "hosts.toml"), hosts(registry, upstream))
      write(certs(directory, registry, "more", "ca.pem"), "x")
    },
    before: (directory, registry, upstream) => {
      const prepended = `\n\n[host]\n[host.'http://127.0.0.1:9/']\ncapabilities = ['pull']\n`
      spegel(directory, registry, registry, prepended, upstream)
      write(certs(directory, registry, "more", "ca.pem"), "x")
    }
  },
  {
    name: "a file that is a link to nothing",
    isMirrored: false,
    make: (directory, registry) => {
      mkdirSync(certs(directory, withPort(registry)), { recursive: true })
      symlinkSync("../../nothing.toml", certs(directory, withPort(registry), "hosts.toml"))
    }
  },
  {
    name: "a file that is a link to itself",
    isMirrored: false,
    make: (directory, registry) => {
      mkdirSync(certs(directory, withPort(registry)), { recursive: true })
      symlinkSync("hosts.toml", certs(directory, withPort(registry), "hosts.toml"))
    }
  },
  {
    name: "a file that is a directory",
    isMirrored: false,
    make: (directory, registry) => mkdirSync(certs(directory, withPort(registry), "hosts.toml"), { recursive: true })
  },
  {
    name: "other registries that cannot be configured",
    make: (directory, registry, upstream) => {
      write(certs(directory, withPort(registry), "hosts.toml"), hosts(registry, upstream))
      mkdirSync(certs(directory, "a.example", "hosts.toml"), { recursive: true })
      for (const name of ["b.example", "c.example", "d.example"]) mkdirSync(certs(directory, name))
      symlinkSync("hosts.toml", certs(directory, "b.example", "hosts.toml"))
      symlinkSync("nothing", certs(directory, "c.example", "hosts.toml"))
      execFileSync("mkfifo", [certs(directory, "d.example", "hosts.toml")])
      symlinkSync("loop.example", certs(directory, "loop.example"))
      symlinkSync("nothing", certs(directory, "nothing.example"))
      write(certs(directory, "file.example"), "x")
    }
  },
  {
    name: "a certificate that is none, in use",
    make: (directory, registry) => {
      write(certs(directory, withPort(registry), "ca.crt"), "x")
      write(certs(directory, withPort(registry), "hosts.toml"), "# nothing yet\n")
    }
  },
  {
    name: "certificates beside a file that containerd refuses",
    make: (directory, registry) => {
      write(certs(directory, withPort(registry), "ca.crt"), certificate)
      write(
        certs(directory, withPort(registry), "hosts.toml"),
        `server = "http://127.0.0.1:9"\nskip_verify = 1\n[host]\n`
      )
    }
  }
]

/** Files of one registry that differ in their text. */
export const texts: ReadonlyArray<StartingState> = HostsTexts.texts.map(({ isMirrored = true, make, name }) => ({
  name,
  isMirrored,
  only: true,
  make: (directory, registry, upstream = `http://${registry}`) =>
    write(certs(directory, withPort(registry), "hosts.toml"), make(upstream))
}))

/** All states: of the file system, and of texts. */
export const states: ReadonlyArray<StartingState> = [...shapes, ...texts]

/** Everything below a directory: kind, permissions, owner and content of each entry. */
export const snapshot = (directory: string): ReadonlyArray<string> =>
  readdirSync(directory, { recursive: true, encoding: "utf8" }).toSorted().map((name) => {
    const path = join(directory, name)
    const stats = lstatSync(path)
    const content = stats.isSymbolicLink()
      ? readlinkSync(path)
      : stats.isFile()
      ? readFileSync(path, "latin1")
      : ""
    return `${name} ${stats.mode.toString(8)} ${stats.uid}:${stats.gid} ${JSON.stringify(content)}`
  })
