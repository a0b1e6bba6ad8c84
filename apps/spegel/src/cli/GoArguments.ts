/** Command lines that Go Spegel takes, as the parser here takes them. */

/**
 * Go Spegel takes several values behind one flag (`--mirrored-registries a b`): gives each a flag of its own. It takes one
 * dash for two as well (`-store=containerd`).
 */
export const normalise = (args: ReadonlyArray<string>, lists: ReadonlySet<string>): ReadonlyArray<string> => {
  const normal: Array<string> = []
  let list: string | undefined
  let first = false
  for (const [index, arg] of args.entries()) {
    if (arg === "--") return [...normal, ...args.slice(index)]
    if (arg.startsWith("-")) {
      const flag = /^-[a-z][a-z-]+(?:=|$)/.test(arg) ? `-${arg}` : arg
      list = lists.has(flag.slice(2)) ? flag : undefined
      first = true
      normal.push(flag)
    } else {
      if (list !== undefined && !first) normal.push(list)
      first = false
      normal.push(arg)
    }
  }
  return normal
}
