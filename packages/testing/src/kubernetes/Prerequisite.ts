/** Programs that tests need on the machine. */
import type { Environment } from "@spegel-ts/kubernetes/ClusterAccess"
import { existsSync } from "node:fs"
import { join } from "node:path"

/** Whether the program is in one of the directories of `PATH`. */
export const inPath = (program: string, { PATH = "" }: Environment): boolean =>
  PATH.split(":").some((directory) => existsSync(join(directory, program)))

/** The reason to skip a test, if there is one. Throws in CI, where nothing may be lacking. */
export const lacking = ({ CI }: Environment, reason: string | undefined): string | undefined => {
  if (reason !== undefined && CI === "true") throw new Error(`CI lacks a prerequisite: ${reason}`)
  return reason
}
