/** Directories of hosts.toml files as clusters have them before the mirror comes, for `registry`. */
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

export interface StartingState {
  readonly name: string
  /** Whether only `registry` is mirrored; else all are. */
  readonly only?: boolean
  /** Makes it in a directory that is empty; `certs.d` there is the config path. */
  readonly make: (directory: string, registry: string) => void
  /** What is done to it, after which it has to be restored to what `make` made. */
  readonly before?: (directory: string, registry: string) => void
}

const write = (path: string, text: string, mode = 0o644) => {
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(path, Buffer.from(text, "latin1"))
  chmodSync(path, mode)
}

const certs = (directory: string, ...path: ReadonlyArray<string>) => join(directory, "certs.d", ...path)
const withPort = (registry: string) => registry.replace(/^(.+):(\d+)$/, "$1_$2_")

/** containerd reads certificates that it is given for http too. */
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

const hosts = (registry: string) =>
  `# kept by the platform team\nserver = "http://${registry}"\n\n` +
  `[host."http://127.0.0.1:9"] # a cache that is down\n  capabilities = ["pull", "resolve"]\n`

/** A directory as Go Spegel leaves it, with its own file for `registry` or for all. */
const spegel = (directory: string, name: string, registry: string, prepended: string) => {
  const moved = readdirSync(certs(directory))
  mkdirSync(certs(directory, "_backup"))
  for (const entry of moved) renameSync(certs(directory, entry), certs(directory, "_backup", entry))
  const server = name === "_default" ? "" : `server = 'http://${registry}'\n`
  write(
    certs(directory, name, "hosts.toml"),
    `${server}\n[host.'http://127.0.0.1:9']\ncapabilities = ['pull', 'resolve']\ndial_timeout = '200ms'${prepended}`
      .trim()
  )
}

export const states: ReadonlyArray<StartingState> = [
  { name: "no directory", make: () => {} },
  { name: "no directory, one registry", only: true, make: () => {} },
  { name: "an empty directory", make: (directory) => mkdirSync(certs(directory)) },
  {
    name: "a file with comments",
    only: true,
    make: (directory, registry) => write(certs(directory, withPort(registry), "hosts.toml"), hosts(registry))
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
    make: (directory, registry) => {
      write(certs(directory, "_default", "hosts.toml"), `[host."http://127.0.0.1:9"]\n`)
      write(certs(directory, withPort(registry), "hosts.toml"), hosts(registry))
    }
  },
  {
    name: "a file that is read-only and another's",
    only: true,
    make: (directory, registry) => {
      const path = certs(directory, withPort(registry), "hosts.toml")
      write(path, hosts(registry), 0o440)
      if (process.getuid?.() === 0) chownSync(path, 1000, 1000)
    }
  },
  {
    name: "broken TOML",
    make: (directory, registry) => write(certs(directory, withPort(registry), "hosts.toml"), `server = \n[host."x`)
  },
  {
    name: "no text at all",
    make: (directory, registry) => write(certs(directory, withPort(registry), "hosts.toml"), "\xff\0\r\xfe", 0o600)
  },
  {
    name: "a file without anything in it",
    make: (directory, registry) => write(certs(directory, withPort(registry), "hosts.toml"), "")
  },
  {
    name: "a registry's directory without anything in it",
    make: (directory, registry) => mkdirSync(certs(directory, withPort(registry)), { recursive: true })
  },
  {
    name: "a directory that is a link",
    only: true,
    make: (directory, registry) => {
      write(join(directory, "shared", "hosts.toml"), hosts(registry))
      mkdirSync(certs(directory))
      symlinkSync("../shared", certs(directory, withPort(registry)))
    }
  },
  {
    name: "a file that is a link",
    make: (directory, registry) => {
      write(join(directory, "shared.toml"), hosts(registry))
      mkdirSync(certs(directory, withPort(registry)), { recursive: true })
      symlinkSync("../../shared.toml", certs(directory, withPort(registry), "hosts.toml"))
    }
  },
  {
    name: "a config path that is a link",
    make: (directory, registry) => {
      write(join(directory, "elsewhere", withPort(registry), "hosts.toml"), hosts(registry))
      symlinkSync("elsewhere", certs(directory))
    }
  },
  {
    name: "a directory with the port behind a colon",
    only: true,
    make: (directory, registry) => write(certs(directory, registry, "hosts.toml"), hosts(registry))
  },
  {
    name: "arrays over several lines, CRLF, no end of line",
    make: (directory, registry) => {
      write(certs(directory, withPort(registry), "ca.crt"), certificate)
      write(
        certs(directory, withPort(registry), "hosts.toml"),
        `server = "http://${registry}"\r\nca = [\r\n  "ca.crt"\r\n]\r\n\r\n[host."http://127.0.0.1:9"]\r\ncapabilities = [\r\n  "pull"\r\n]`
      )
    }
  },
  {
    name: "several registries and files of others",
    make: (directory, registry) => {
      write(certs(directory, withPort(registry), "hosts.toml"), hosts(registry))
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
    make: (directory, registry) => {
      write(certs(directory, withPort(registry), "hosts.toml"), hosts(registry))
      write(certs(directory, "README"), "x")
    },
    before: (directory, registry) => spegel(directory, "_default", registry, "")
  },
  {
    name: "an installation of Go Spegel with --prepend-existing",
    only: true,
    make: (directory, registry) => {
      write(certs(directory, registry, "hosts.toml"), hosts(registry))
      write(certs(directory, registry, "more", "ca.pem"), "x")
    },
    before: (directory, registry) => {
      spegel(directory, registry, registry, `\n\n[host]\n[host.'http://127.0.0.1:9']\ncapabilities = ['pull']\n`)
      write(certs(directory, registry, "more", "ca.pem"), "x")
    }
  }
]

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
