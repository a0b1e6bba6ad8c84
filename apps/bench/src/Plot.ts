/** Bar charts as SVG, for documents: a group of bars for each figure, with a scale of its own and the value beside each bar. */
import { mkdir, writeFile } from "node:fs/promises"
import { join } from "node:path"

export interface Bars {
  /** The quantity, with its unit. */
  readonly name: string
  readonly bars: ReadonlyArray<{ readonly name: string; readonly value: number }>
}

const width = 760
const labelWidth = 250
const valueWidth = 90
const barHeight = 18
const groupGap = 18
const titleHeight = 48
/** Colours that colour-blind readers can distinguish, too. */
const colours = ["#0072b2", "#d55e00", "#009e73", "#cc79a7"]

const escape = (text: string): string =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll("\"", "&quot;")

const print = (value: number): string =>
  value >= 100 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(3)))

/** The chart. Bars of the same name have the same colour in all groups. */
export const bars = (title: string, groups: ReadonlyArray<Bars>): string => {
  const names = [...new Set(groups.flatMap((group) => group.bars.map(({ name }) => name)))]
  const colourOf = (name: string) => colours[names.indexOf(name) % colours.length] ?? ""
  const parts: Array<string> = []
  let y = titleHeight
  for (const group of groups) {
    const most = Math.max(...group.bars.map(({ value }) => value), Number.MIN_VALUE)
    parts.push(`<text x="${labelWidth - 12}" y="${y + 13}" text-anchor="end">${escape(group.name)}</text>`)
    for (const { name, value } of group.bars) {
      const length = Math.max(1, (value / most) * (width - labelWidth - valueWidth))
      parts.push(
        `<rect x="${labelWidth}" y="${y}" width="${length.toFixed(1)}" height="${barHeight - 4}" fill="${
          colourOf(name)
        }"/>`,
        `<text x="${(labelWidth + length + 6).toFixed(1)}" y="${y + 12}" class="value">${print(value)}</text>`
      )
      y += barHeight
    }
    y += groupGap
  }
  const legend = names.map((name, index) => {
    const x = 16 + index * Math.floor((width - 16) / names.length)
    return `<rect x="${x}" y="${y}" width="12" height="12" fill="${colourOf(name)}"/>` +
      `<text x="${x + 18}" y="${y + 11}">${escape(name)}</text>`
  })
  const height = y + 28
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img">`,
    `<title>${escape(title)}</title>`,
    "<style>text{font:13px sans-serif;fill:#222}.title{font-weight:bold;font-size:15px}.value{font-size:12px}</style>",
    `<rect width="${width}" height="${height}" fill="#fff"/>`,
    `<text x="16" y="26" class="title">${escape(title)}</text>`,
    ...parts,
    ...(names.length > 1 ? legend : []),
    "</svg>",
    ""
  ].join("\n")
}

/** Writes a chart into a directory; makes the directory if it is missing. */
export const write = async (directory: string, name: string, svg: string): Promise<void> => {
  await mkdir(directory, { recursive: true })
  await writeFile(join(directory, `${name}.svg`), svg)
}
