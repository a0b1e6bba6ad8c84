/**
 * The address that a connection counts for: its IP address. An IPv6 address counts by itself and not by its /64, since all
 * pods of a node may share one, and all nodes of a subnet.
 */
const mapped = /^::ffff:(?=\d+\.)/i

/** A socket's remote address. IPv4 looks the same whether the listener takes IPv6 or not. */
export const of = ({ remoteAddress = "" }: { readonly remoteAddress?: string | undefined }): string =>
  remoteAddress.replace(mapped, "")
