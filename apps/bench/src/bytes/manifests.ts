/** Small manifests per second, compared with bare node:http that answers with the same bytes. */
import { percentile } from "../Statistics.ts"
import * as Requests from "./load/Requests.ts"

export interface ManifestFigures {
  readonly requestsPerSecond: number
  readonly bareRequestsPerSecond: number
  /** The median of the rounds' ratios. */
  readonly ratio: number
}

export const manifests = async (
  ours: Requests.Endpoint,
  bare: Requests.Endpoint,
  rounds: number
): Promise<ManifestFigures> => {
  const own: Array<number> = []
  const theirs: Array<number> = []
  await Requests.perSecond(ours)
  await Requests.perSecond(bare)
  for (let round = 0; round < rounds; round++) {
    own.push(await Requests.perSecond(ours))
    theirs.push(await Requests.perSecond(bare))
  }
  return {
    requestsPerSecond: Math.round(percentile(own, 0.5)),
    bareRequestsPerSecond: Math.round(percentile(theirs, 0.5)),
    ratio: percentile(own.map((value, round) => value / (theirs[round] ?? value)), 0.5)
  }
}
