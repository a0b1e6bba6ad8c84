/** Text that is HTML. All else is escaped where it is put into HTML: here, and nowhere else. */

/** Text that a browser may read as HTML. */
export class Html {
  readonly text: string

  constructor(text: string) {
    this.text = text
  }
}

const escapes = new Map([["&", "&amp;"], ["<", "&lt;"], [">", "&gt;"], ["\"", "&quot;"], ["'", "&#39;"]])
const escape = (text: string): string => text.replace(/[&<>"']/g, (character) => escapes.get(character) ?? "")

/** A value in a template. An array is the sequence of its values. */
export type Part = Html | string | number | ReadonlyArray<Part>

const print = (part: Part): string => {
  if (part instanceof Html) return part.text
  if (typeof part === "string" || typeof part === "number") return escape(String(part))
  return part.map(print).join("")
}

/** HTML from a template: its own text as it is, all values escaped unless they are HTML themselves. */
export const html = (texts: TemplateStringsArray, ...parts: ReadonlyArray<Part>): Html =>
  new Html(texts.map((text, index) => text + (index < parts.length ? print(parts[index] ?? "") : "")).join(""))

export const none = new Html("")
