/** One check of `spegel doctor`: its name, its verdict, what was found, and what to do about it. */

/** The checks, in the order in which they are shown. Scripts know them by these names. */
export const names = [
  "socket",
  "namespace",
  "content",
  "cri",
  "config-path",
  "pull-mode",
  "hosts-toml",
  "registry-port",
  "router-port",
  "ready",
  "cluster-key",
  "peers",
  "clock",
  "canary",
  "layers"
] as const

export type CheckName = typeof names[number]

export type Verdict =
  | "ok"
  /** It works, but not as well as it should, or not for long. */
  | "warning"
  /** The mirror is not used, or does not help others. */
  | "problem"
  /** It could not be checked; that is no fault. */
  | "skipped"

export interface Check {
  readonly name: CheckName
  /** What was checked if there are several, such as a registry; empty if there is one. */
  readonly subject: string
  readonly verdict: Verdict
  /** What was found, as a person reads it. */
  readonly found: string
  /** What to do; empty if nothing. */
  readonly advice: string
}

const verdict = (verdict: Verdict) => (name: CheckName, found: string, advice = "", subject = ""): Check => ({
  name,
  subject,
  verdict,
  found,
  advice
})

export const ok = verdict("ok")
export const warning = verdict("warning")
export const problem = verdict("problem")
export const skipped = verdict("skipped")

/** The same check of one of several subjects. */
export const about = (subject: string, check: Check): Check => ({ ...check, subject })

export type Result =
  /** No problem was found, and a pull through containerd reached this mirror. */
  | "proved"
  /** No problem was found, but no pull could be tried. */
  | "not proved"
  | "problem"

/** Whether a check did not find what keeps the mirror from working. */
export const isProved = ({ verdict }: Check): boolean => verdict === "ok" || verdict === "warning"

/** The overall result. */
export const resultOf = (checks: ReadonlyArray<Check>): Result => {
  if (checks.some(({ verdict }) => verdict === "problem")) return "problem"
  return checks.some((check) => check.name === "canary" && isProved(check)) ? "proved" : "not proved"
}
