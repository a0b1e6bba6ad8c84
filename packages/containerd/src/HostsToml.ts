/**
 * containerd's `hosts.toml` as text (docs/hosts.md of containerd): our tables stand in a marked block, and what others
 * wrote stays as it is, to the byte.
 *
 * Order is meaning in this file: hosts are tried as their tables stand, and a root key such as `server` that comes after
 * a table belongs to that table. So the block goes behind the root keys and in front of the first table.
 */
import { Option, Result } from "effect"
import { parse } from "smol-toml"

export interface MirrorHost {
  /** URL of the mirror, `http://127.0.0.1:5000`. */
  readonly url: string
  /** Whether it is asked for tags too; digests it is asked for always. */
  readonly resolveTags: boolean
  /** Value of an `Authorization` header for it. */
  readonly authorization: Option.Option<string>
}

const begin = "# spegel-ts: begin (written by `spegel configuration`, do not edit)"
const end = "# spegel-ts: end"

/** A TOML basic string; JSON's escapes are a subset of TOML's. */
const quote = (text: string) => JSON.stringify(text)

const table = ({ authorization, resolveTags, url }: MirrorHost): string => {
  const capabilities = resolveTags ? `["pull", "resolve"]` : `["pull"]`
  const lines = [
    `[host.${quote(url)}]`,
    `capabilities = ${capabilities}`,
    // containerd 2.1 and later; older ones ignore it, and wait 30 s for a host that drops packets.
    `dial_timeout = "200ms"`
  ]
  if (Option.isSome(authorization)) {
    lines.push(`[host.${quote(url)}.header]`, `authorization = [${quote(authorization.value)}]`)
  }
  return lines.join("\n")
}

const block = (lines: ReadonlyArray<string>): string => `${begin}\n${lines.join("\n")}\n${end}\n`

/** The file for a registry that nothing was configured for. Without `server` containerd takes the registry itself. */
export const create = (server: Option.Option<string>, hosts: ReadonlyArray<MirrorHost>): string =>
  block([...Option.toArray(Option.map(server, (url) => `server = ${quote(url)}\n`)), ...hosts.map(table)])

/** Whether the text has our block. */
export const hasBlock = (text: string): boolean => text.includes(`${begin}\n`)

/** The text without our block: what it was before, to the byte. */
export const removeBlock = (text: string): string => {
  const from = text.indexOf(`${begin}\n`)
  const to = text.indexOf(`${end}\n`, from)
  return from === -1 || to === -1 ? text : text.slice(0, from) + text.slice(to + end.length + 1)
}

/** Whether containerd takes the text; it ignores a file that is no TOML or has a table twice, and says so only in its log. */
export const isValid = (text: string): boolean => Result.isSuccess(Result.try(() => parse(text)))

/**
 * Offset of the first line that begins a table, or the length where none does. A line inside an array or a string can
 * look the same, but what stands before it is no TOML by itself.
 */
const firstTable = (text: string): number => {
  for (const { index } of text.matchAll(/^[ \t]*\[/gm)) {
    if (isValid(text.slice(0, index))) return index
  }
  return text.length
}

/** The text with our hosts in front of all others; a block that it has already is replaced. */
export const prepend = (text: string, hosts: ReadonlyArray<MirrorHost>): string => {
  const without = removeBlock(text)
  const at = firstTable(without)
  const before = without.slice(0, at)
  return `${before}${before === "" || before.endsWith("\n") ? "" : "\n"}${block(hosts.map(table))}${without.slice(at)}`
}
