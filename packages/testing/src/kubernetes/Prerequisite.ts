/** What tests need of the machine. */
import type { Environment } from "@spegel-ts/kubernetes/ClusterAccess"
import { existsSync } from "node:fs"
import { join } from "node:path"

export const inPath = (program: string, { PATH = "" }: Environment): boolean =>
  PATH.split(":").some((directory) => existsSync(join(directory, program)))

/** The reason to skip a test, if there is one. CI must lack nothing. */
export const lacking = ({ CI }: Environment, reason: string | undefined): string | undefined => {
  if (reason !== undefined && CI === "true") throw new Error(`CI lacks a prerequisite: ${reason}`)
  return reason
}
