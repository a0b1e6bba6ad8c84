/**
 * Texts of hosts.toml as people, templates and other tools leave them, for an upstream's URL. Each is a starting state.
 * Some no version of containerd takes, some not all.
 */

export interface HostsText {
  readonly name: string
  readonly make: (upstream: string) => string
  /** Whether the mirror can be put into it. Default true. */
  readonly isMirrored?: boolean
}

const dead = "http://127.0.0.1:9"
const caps = `capabilities = ["pull", "resolve"]`

const text = (name: string, make: (upstream: string) => string): HostsText => ({ name, make })

/** A server with a table of its own, and a line in that table. */
const line = (option: string): HostsText =>
  text(option, (upstream) => `server = "${upstream}"\n[host."${upstream}"]\n  ${caps}\n  ${option}\n`)

/** A server and a line at the root. */
const root = (option: string): HostsText =>
  text(`${option}, at the root`, (upstream) => `server = "${upstream}"\n${option}\n[host."${dead}"]\n`)

const plain = (upstream: string) => `# theirs\nserver = "${upstream}"\n[host."${upstream}"]\n  ${caps}\n`

export const texts: ReadonlyArray<HostsText> = [
  // Keys and values in any case.
  text(
    "capabilities in capitals",
    (upstream) => `server = "${upstream}"\n[host."${upstream}"]\ncapabilities = ["Pull", "RESOLVE"]\n`
  ),
  root(`capabilities = ["PULL", "Resolve", "push"]`),
  text("Server", (upstream) => `Server = "${upstream}"\n[host."${upstream}"]\n`),
  text("SERVER", (upstream) => `SERVER = "${upstream}"\n[host]\n`),
  text("sErver beside server", (upstream) => `server = "${upstream}"\nsErver = "${dead}"\n[host]\n`),
  text(
    "Capabilities beside capabilities",
    (upstream) =>
      `server = "${upstream}"\n[host."${upstream}"]\ncapabilities = ["pull", "resolve"]\nCapabilities = ["push"]\n`
  ),
  line(`Skip_Verify = "no boolean in capitals"`),
  text("Host in capitals", (upstream) => `server = "${upstream}"\n[Host."${upstream}"]\n${caps}\n`),
  // Bytes.
  text("a byte order mark", (upstream) => `\xef\xbb\xbf${plain(upstream)}`),
  text("a byte order mark of UTF-16", (upstream) => `\xff\xfe${plain(upstream)}`),
  text("a comment in Latin-1", (upstream) => `# Ger\xe4t\n${plain(upstream)}`),
  text("a header in Latin-1", (upstream) => `${plain(upstream)}[host."${upstream}".header]\nx-team = "Ger\xe4t"\n`),
  text(
    "UTF-8 everywhere",
    (upstream) => `# Ger\xc3\xa4t\n${plain(upstream)}[host."${upstream}".header]\nx-team = "t"\nnote = "\xe2\x82\xac"\n`
  ),
  text("a control character in a comment", (upstream) => `# copied \x1b[1m\n${plain(upstream)}`),
  text("a zero byte in a comment", (upstream) => `# \0\n${plain(upstream)}`),
  text("a tab and a deletion in a string", (upstream) => `note = "\t"\n# \x7f\n${plain(upstream)}`),
  text("CRLF", (upstream) => plain(upstream).replaceAll("\n", "\r\n")),
  text("CR alone", (upstream) => plain(upstream).slice("# theirs\n".length).replaceAll("\n", "\r")),
  text("no end of line", (upstream) => plain(upstream).trimEnd()),
  // Types and values that containerd refuses.
  line(`skip_verify = "true"`),
  line("skip_verify = 1"),
  line(`override_path = "true"`),
  line("header = { x-team = 5 }"),
  line(`header = "x"`),
  line("ca = 5"),
  line("client = [5]"),
  line(`client = [["a", "b", "c"]]`),
  line("dial_timeout = 5"),
  line(`dial_timeout = "soon"`),
  line(`dial_timeout = ""`),
  line(`push = ["unknown option"]`),
  root(`skip_verify = "false"`),
  root("dial_timeout = 5"),
  text("server = 5", (upstream) => `server = 5\n[host."${upstream}"]\n${caps}\n`),
  ...[`["pull", "resolve", "referrers"]`, `["referrers"]`, `["pull", "frobnicate"]`, `"pull"`, `["pull", 5]`, "[]"].map(
    (value) =>
      text(
        `capabilities = ${value}`,
        (upstream) => `server = "${upstream}"\n[host."${upstream}"]\ncapabilities = ${value}\n`
      )
  ),
  text("a table twice", (upstream) => `server = "${upstream}"\n[host."${upstream}"]\n[host."${upstream}"]\n`),
  text(
    "a table twice, in other quotes",
    (upstream) => `server = "${upstream}"\n[host."${upstream}"]\n[host.'${upstream}']\n`
  ),
  text("a key twice", (upstream) => `server = "${upstream}"\nserver = "${upstream}"\n[host]\n`),
  text("keys twice that nobody reads", (upstream) => `${plain(upstream)}[other]\na = 1\na = 2\n`),
  // The server.
  text("an empty server", (upstream) => `server = ""\n[host."${upstream}"]\n`),
  text("a server without a host", (upstream) => `server = "http://"\n[host."${upstream}"]\n`),
  text("a server alone", (upstream) => `server = "${upstream}"\n`),
  text("a server alone, that is down", () => `server = "${dead}"\n`),
  text("a server behind a table", (upstream) => `[host."${upstream}"]\nserver = "${dead}"\n`),
  text(
    "a server with a path",
    (upstream) => `server = "${upstream}/v2"\noverride_path = true\n[host."${upstream}/v2/"]\n`
  ),
  text("a server with a slash", (upstream) => `server = "${upstream}/v2/"\n[host]\n`),
  text("a server that is no URL", (upstream) => `server = "http://registry example"\n[host."${upstream}"]\n`),
  // Hosts that are no tables of their own.
  text(
    "hosts as keys below [host]",
    (upstream) => `server = "${upstream}"\n[host]\n"${dead}" = { ${caps} }\n"${upstream}" = { ${caps} }\n`
  ),
  text("hosts as dotted keys below [host]", (upstream) => `[host]\n"${dead}".${caps}\n"${upstream}".${caps}\n`),
  text("hosts as dotted keys at the root", (upstream) => `host."${upstream}".${caps}\nserver = "${upstream}"\n`),
  text("hosts in one inline table", (upstream) => `server = "${upstream}"\nhost = { "${upstream}" = { ${caps} } }\n`),
  text("hosts as keys and as tables", (upstream) => `[host."${dead}"]\n[host]\n"${upstream}" = { ${caps} }\n`),
  text("host is a number", (upstream) => `server = "${upstream}"\nhost = 5\n`),
  text("host is an array", (upstream) => `server = "${upstream}"\n[[host]]\n"${upstream}" = {}\n`),
  text("a host is a number", (upstream) => `server = "${upstream}"\n[host]\n"${dead}" = 5\n`),
  text("a host without a name", (upstream) => `server = "${upstream}"\n[host."${upstream}"]\n[host.""]\n`),
  text(
    "a host at an IPv6 address",
    (upstream) => `server = "${upstream}"\n[host."http://[::1]:9"]\n[host."${upstream}"]\n`
  ),
  text("a host at a port without a number", (upstream) => `server = "${upstream}"\n[host."http://127.0.0.1:port"]\n`),
  text("a host with a user", (upstream) => `[host."${upstream.replace("//", "//user:word@")}"]\n${caps}\n`),
  text(
    "tables of hosts in turn",
    (upstream) => `[host."${dead}"]\n[host."${upstream}"]\n${caps}\n[host."${dead}".header]\nx = "1"\n`
  ),
  text(
    "a header in front of its table",
    (upstream) => `[host."${upstream}".header]\nx = ["1"]\n[host."${upstream}"]\n${caps}\n`
  ),
  // Syntax.
  text("nothing", () => ""),
  text("no text at all", () => "\xff\0\r\xfe"),
  text("broken TOML", () => `server = \n[host."x`),
  text("comments alone", () => `# nothing yet\n\n`),
  text("white space alone", () => ` \n\t\n`),
  text(
    "strings of several lines that look like tables",
    (upstream) => `note = """\n[host."${dead}"]\n"""\n${plain(upstream)}`
  ),
  text(
    "numbers and dates",
    (upstream) => `a = 0x1F\nb = 1_000\nc = 2026-11-29T10:00:00Z\nd = -1.5e3\ne = inf\n${plain(upstream)}`
  ),
  text(
    "arrays over lines, with comments",
    (upstream) =>
      `server = '${upstream}'\n[host.'${upstream}'] # [x]\ncapabilities = [\n  "pull", # [y]\n  'resolve',\n]\n`
  ),
  text("inline tables over lines", (upstream) => `${plain(upstream)}header = {\n  x = "1"\n}\n`),
  text("a key on a table's line", (upstream) => `server = "${upstream}"\n[host."${upstream}"] ${caps}\n`),
  text(
    "quoted keys and spaces",
    (upstream) => `"server" = "${upstream}"\n[ "host" . '${upstream}' ]\n'capabilities' = ["pull", "resolve"]\n`
  ),
  text("arrays of tables of others", (upstream) => `${plain(upstream)}[[other]]\na = 1\n[[other]]\na = 1\n`),
  text("half a file", (upstream) => plain(upstream).slice(0, -12)),
  text("a string without an end", (upstream) => `note = "\n${plain(upstream)}`),
  text("escapes in keys", (upstream) => `"ser\\u0076er" = "${upstream}"\n[host]\n`),
  text("a large file", (upstream) => `${"# a long comment\n".repeat(50_000)}${plain(upstream)}`),
  {
    ...text("a file that is too large", (upstream) => `${"# a long comment\n".repeat(70_000)}${plain(upstream)}`),
    isMirrored: false
  }
]
