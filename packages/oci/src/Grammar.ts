/**
 * The grammars that names, tags and registry hosts follow (OCI distribution specification 1.1, "Pulling manifests";
 * distribution/reference for registry hosts).
 */

const maxRepositoryLength = 255
const maxRegistryLength = 255

const repository = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:\/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$/
const tag = /^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$/
const label = "[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
const registry = new RegExp(`^(?:${label}(?:\\.${label})*|\\[[0-9a-fA-F:.]{2,45}\\])(?::([0-9]{1,5}))?$`)

/** `<name>` of the specification: lower-case path components, at most 255 characters in all. */
export const isRepository = (text: string): boolean => text.length <= maxRepositoryLength && repository.test(text)

/** `<reference>` of the specification if it is a tag: at most 128 characters. */
export const isTag = (text: string): boolean => tag.test(text)

/** A registry host: a DNS name, an IPv4 address or an IPv6 address in brackets, with or without a port. */
export const isRegistry = (text: string): boolean => {
  if (text.length > maxRegistryLength) return false
  const match = registry.exec(text)
  if (match === null) return false
  if (text.startsWith("[") && !URL.canParse(`http://${text}`)) return false
  const port = match[1]
  return port === undefined || (Number(port) >= 1 && Number(port) <= 65_535)
}

/** Whether the first component of a name is a registry host rather than a part of a repository's path. */
export const looksLikeRegistry = (component: string): boolean =>
  (/[.:]/.test(component) || component === "localhost") && isRegistry(component)
