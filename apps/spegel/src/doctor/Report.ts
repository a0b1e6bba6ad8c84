/** Shows an examination to a person, or to a program. */
import { version } from "../Version.ts"
import { type Check, resultOf, type Verdict } from "./Check.ts"
import type { Examination } from "./Doctor.ts"

/** Signs are read without colour too. */
const signs: Readonly<Record<Verdict, { readonly text: string; readonly colour: number }>> = {
  ok: { text: "ok", colour: 32 },
  warning: { text: "warning", colour: 33 },
  problem: { text: "problem", colour: 31 },
  skipped: { text: "skipped", colour: 2 }
}

type Paint = (colour: number, text: string) => string

/** Without control characters: what a network or a file says must not move the cursor. */
const printable = (text: string): string => text.replaceAll(/\p{Cc}+/gu, " ")

const lineOf = (paint: Paint) => ({ advice, found, name, subject, verdict }: Check): ReadonlyArray<string> => {
  const { colour, text } = signs[verdict]
  const title = subject === "" ? name : `${name} ${subject}`
  return [
    `${paint(colour, text.padEnd(7))} ${title}: ${printable(found)}`,
    ...advice === "" ? [] : [`        -> ${printable(advice)}`]
  ]
}

const summaryOf = (checks: ReadonlyArray<Check>): string => {
  const count = (verdict: Verdict) => checks.filter((check) => check.verdict === verdict).length
  const counted = (verdict: "problem" | "warning") => `${count(verdict)} ${verdict}${count(verdict) === 1 ? "" : "s"}`
  const counts = `${counted("problem")}, ${counted("warning")}, ${count("skipped")} skipped`
  switch (resultOf(checks)) {
    case "proved":
      return `proved: containerd pulls through this mirror (${counts})`
    case "not proved":
      return `not proved: nothing wrong was found, but no pull could be tried (${counts})`
    case "problem":
      return `problem: see above (${counts})`
  }
}

/** Lines for a person. */
export const text = ({ checks }: Examination, { colours }: { readonly colours: boolean }): string => {
  const paint: Paint = (colour, text) => colours ? `\u001b[${colour}m${text}\u001b[0m` : text
  return [...checks.flatMap(lineOf(paint)), summaryOf(checks)].join("\n")
}

/** One JSON document. */
export const json = ({ checks, containerd }: Examination): string =>
  JSON.stringify({ version, containerd: containerd ?? null, result: resultOf(checks), checks }, null, 2)
