/**
 * Charts as SVG, for documents. Bars: a group for each figure, with a scale of its own and the value beside each bar. Lines: a panel for
 * each run or quantity.
 */
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
const colours = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"]

const escape = (text: string): string =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll("\"", "&quot;")

const print = (value: number): string =>
  value >= 100 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(3)))

/** The colour of one of these names. */
const colourOf = (names: ReadonlyArray<string>, name: string): string =>
  colours[names.indexOf(name) % colours.length] ?? ""

/** The chart. Bars of the same name have the same colour in all groups. */
export const bars = (title: string, groups: ReadonlyArray<Bars>): string => {
  const names = [...new Set(groups.flatMap((group) => group.bars.map(({ name }) => name)))]
  const parts: Array<string> = []
  let y = titleHeight
  for (const group of groups) {
    const most = Math.max(...group.bars.map(({ value }) => value), Number.MIN_VALUE)
    parts.push(`<text x="${labelWidth - 12}" y="${y + 13}" text-anchor="end">${escape(group.name)}</text>`)
    for (const { name, value } of group.bars) {
      const length = Math.max(1, (value / most) * (width - labelWidth - valueWidth))
      parts.push(
        `<rect x="${labelWidth}" y="${y}" width="${length.toFixed(1)}" height="${barHeight - 4}" fill="${
          colourOf(names, name)
        }"/>`,
        `<text x="${(labelWidth + length + 6).toFixed(1)}" y="${y + 12}" class="value">${print(value)}</text>`
      )
      y += barHeight
    }
    y += groupGap
  }
  return document(title, y + 28, [...parts, ...(names.length > 1 ? legend(names, y) : [])])
}

export interface Panel {
  readonly name: string
  readonly lines: ReadonlyArray<
    { readonly name: string; readonly points: ReadonlyArray<readonly [x: number, y: number]> }
  >
}

const panelHeight = 120
const panelGap = 44

const topOf = (panels: ReadonlyArray<Panel>): number =>
  Math.max(Number.MIN_VALUE, ...panels.flatMap((panel) => panel.lines.flatMap((line) => line.points.map(([, y]) => y))))

/**
 * A panel below another. Lines of the same name have the same colour in all panels. The panels have one scale, or each its own upwards
 * if they are of different quantities.
 */
export const lines = (title: string, panels: ReadonlyArray<Panel>, scales: "shared" | "own" = "shared"): string => {
  const all = panels.flatMap((panel) => panel.lines)
  const right = Math.max(1, ...all.flatMap((line) => line.points.map(([x]) => x)))
  const names = [...new Set(all.map(({ name }) => name))]
  const left = 60
  const parts = panels.flatMap((panel, index) => {
    const { lines, name } = panel
    const top = topOf(scales === "shared" ? panels : [panel])
    const y = titleHeight + 16 + index * (panelHeight + panelGap)
    const at = ([x, value]: readonly [number, number]) =>
      `${(left + (x / right) * (width - left - 20)).toFixed(1)},${(y + panelHeight * (1 - value / top)).toFixed(1)}`
    return [
      `<text x="${left}" y="${y - 6}">${escape(name)}</text>`,
      `<path d="M${left} ${y}V${y + panelHeight}H${width - 20}" fill="none" stroke="#888"/>`,
      `<text x="${left - 6}" y="${y + 10}" text-anchor="end" class="value">${print(top)}</text>`,
      `<text x="${width - 20}" y="${y + panelHeight + 14}" text-anchor="end" class="value">${print(right)}</text>`,
      ...lines.map((line) =>
        `<polyline points="${line.points.map(at).join(" ")}" fill="none" stroke="${
          colourOf(names, line.name)
        }" stroke-width="2"/>`
      )
    ]
  })
  const y = titleHeight + 16 + panels.length * (panelHeight + panelGap) - 16
  return document(title, y + 28, [...parts, ...legend(names, y)])
}

const legend = (names: ReadonlyArray<string>, y: number): ReadonlyArray<string> =>
  names.map((name, index) => {
    const x = 16 + index * Math.floor((width - 16) / names.length)
    return `<rect x="${x}" y="${y}" width="12" height="12" fill="${colourOf(names, name)}"/>` +
      `<text x="${x + 18}" y="${y + 11}">${escape(name)}</text>`
  })

const document = (title: string, height: number, parts: ReadonlyArray<string>): string =>
  [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img">`,
    `<title>${escape(title)}</title>`,
    "<style>text{font:13px sans-serif;fill:#222}.title{font-weight:bold;font-size:15px}.value{font-size:12px}</style>",
    `<rect width="${width}" height="${height}" fill="#fff"/>`,
    `<text x="16" y="26" class="title">${escape(title)}</text>`,
    ...parts,
    "</svg>",
    ""
  ].join("\n")

/** Writes a chart into a directory; makes the directory if it is missing. */
export const write = async (directory: string, name: string, svg: string): Promise<void> => {
  await mkdir(directory, { recursive: true })
  await writeFile(join(directory, `${name}.svg`), svg)
}
