/** Turns command lines that Go Spegel accepts into ones that our parser accepts. */

/**
 * Go Spegel accepts several values after one flag (`--mirrored-registries a b`): each gets a flag of its own. It also accepts
 * one dash for two (`-store=containerd`). `lists` has the names of the flags with several values.
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
