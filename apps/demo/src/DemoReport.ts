/** The text that the demo prints: bars while it pulls, a table of the objects with their sources, and the totals. */

/** An object that a node pulled. */
export interface ReportRow {
  readonly node: string
  readonly kind: string
  readonly bytes: number
  readonly servedBy: string
  /** Answers of the hosts that were asked before. */
  readonly refusals: ReadonlyArray<string>
  /** Undefined if the client does not tell: the mirror does not see what containerd pulls from upstream. */
  readonly millis: number | undefined
}

/** Totals; sizes in bytes. */
export interface Summary {
  readonly imageBytes: number
  readonly nodes: number
  readonly upstreamBytes: number
  readonly peerBytes: number
  readonly seconds: number
}

const mebi = (bytes: number): string =>
  bytes < 1024 * 1024 ? `${(bytes / 1024).toFixed(1)} KiB` : `${(bytes / 1024 / 1024).toFixed(1)} MiB`

const speed = (bytes: number, millis: number): string =>
  bytes < 1024 * 1024 ? "" : `${(bytes / 1e6 / (Math.max(1, millis) / 1000)).toFixed(0)} MB/s`

const barWidth = 30

/** A progress bar that fits 80 columns. */
export const bar = (node: string, kind: string, written: number, total: number, millis: number): string => {
  const share = total === 0 ? 1 : Math.min(1, written / total)
  const full = Math.round(share * barWidth)
  const percent = String(Math.floor(share * 100)).padStart(3)
  return `${node}  ${"█".repeat(full)}${"░".repeat(barWidth - full)} ${percent} %  ${
    speed(written, millis).padStart(9)
  }  ${kind}`
}

/** A table with columns as wide as their widest cell, and numbers aligned to the right. */
export const table = (rows: ReadonlyArray<ReportRow>): string => {
  const head = ["node", "object", "size", "served by", "ms", "speed"]
  const cells = rows.map(({ bytes, kind, millis, node, servedBy }) => [
    node,
    kind,
    mebi(bytes),
    servedBy,
    millis?.toFixed(0) ?? "",
    millis === undefined ? "" : speed(bytes, millis)
  ])
  const widths = head.map((title, column) => Math.max(title.length, ...cells.map((row) => (row[column] ?? "").length)))
  const right = new Set([2, 4, 5])
  const line = (row: ReadonlyArray<string>) =>
    row.map((cell, column) => right.has(column) ? cell.padStart(widths[column] ?? 0) : cell.padEnd(widths[column] ?? 0))
      .join("  ").trimEnd()
  return [line(head), widths.map((width) => "─".repeat(width)).join("  "), ...cells.map(line)].join("\n")
}

/** Lines that say why a host that was asked first did not serve. */
export const refusals = (rows: ReadonlyArray<ReportRow>): ReadonlyArray<string> =>
  rows.flatMap(({ kind, node, refusals, servedBy }) =>
    refusals.map((refusal) => `${node}: ${kind} comes from ${servedBy}: ${refusal}`)
  )

/** The totals in words. */
export const sum = ({ imageBytes, nodes, peerBytes, seconds, upstreamBytes }: Summary): string => {
  const times = (bytes: number) => `${(bytes / imageBytes).toFixed(1)}x the image`
  return [
    `image            ${mebi(imageBytes)}, pulled by ${nodes} nodes in ${seconds.toFixed(2)} s`,
    `from upstream    ${mebi(upstreamBytes)} = ${times(upstreamBytes)} (without a mirror: ${nodes.toFixed(1)}x)`,
    `from peers       ${mebi(peerBytes)} = ${times(peerBytes)}`
  ].join("\n")
}
