/** What the demo prints: lines, and a bar for each node that grows while the node pulls. On a pipe, bars are printed when they are full. */
import { Effect } from "effect"
import * as Bar from "./Bar.ts"

export interface ScreenOptions {
  /** Prints nothing: there will be JSON. */
  readonly isSilent: boolean
  /** Whether it is a terminal, whose lines can be printed over. */
  readonly isTerminal: boolean
  readonly isColoured: boolean
  readonly write: (text: string) => void
}

/** One bar for each node. */
export interface Bars {
  /** Bytes have come to a node. */
  readonly grow: (node: string, source: Bar.Source, bytes: number) => Effect.Effect<void>
  /** A node has the image, after so many milliseconds. */
  readonly finish: (node: string, millis: number) => Effect.Effect<void>
}

export interface Screen {
  readonly say: (text: string) => Effect.Effect<void>
  /** Begins bars that are full at `total` bytes. */
  readonly bars: (nodes: ReadonlyArray<string>, total: number) => Bars
}

const redrawMillis = 50

/** The screen of this process. */
export const options = (isSilent: boolean): ScreenOptions => {
  const { NO_COLOR: noColour = "" } = process.env
  const isTerminal = process.stdout.isTTY
  return {
    isSilent,
    isTerminal,
    isColoured: isTerminal && noColour === "",
    write: (text) => process.stdout.write(text)
  }
}

export const make = ({ isColoured, isSilent, isTerminal, write }: ScreenOptions): Screen => {
  const print = (text: string) => {
    if (!isSilent) write(text)
  }
  return {
    say: (text) => Effect.sync(() => print(`${text}\n`)),
    bars: (nodes, total) => {
      const states = new Map<string, Bar.State>(
        nodes.map((node) => [node, { upstream: 0, peers: 0, millis: undefined }])
      )
      const lineOf = (node: string) => {
        const state = states.get(node)
        return state === undefined ? "" : `${Bar.print({ node, total, isColoured, ...state })}\n`
      }
      let drawnAt = -Infinity
      const draw = () => {
        // Up to the first bar again, and over each.
        const up = drawnAt === -Infinity ? "" : `\u001B[${nodes.length}A`
        drawnAt = performance.now()
        print(up + nodes.map((node) => `\u001B[2K${lineOf(node)}`).join(""))
      }
      const change = (node: string, to: (state: Bar.State) => Bar.State) => {
        const state = states.get(node)
        if (state !== undefined) states.set(node, to(state))
      }
      return {
        grow: (node, source, bytes) =>
          Effect.sync(() => {
            change(node, (state) => ({ ...state, [source]: state[source] + bytes }))
            if (isTerminal && performance.now() - drawnAt >= redrawMillis) draw()
          }),
        finish: (node, millis) =>
          Effect.sync(() => {
            change(node, (state) => ({ ...state, millis }))
            if (isTerminal) draw()
            else print(lineOf(node))
          })
      }
    }
  }
}
