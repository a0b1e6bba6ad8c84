/** The cells that a run measures: by version of containerd, client, company and fault. */
import type { Version } from "@spegel-ts/testing/containerd/ContainerdPackages"
import { clockChanges, type Fault, faults, requestKinds } from "./Fault.ts"
import type { Client } from "./LaneMembers.ts"
import type { Cell, Company } from "./Matrix.ts"

/** A version of containerd, with settings. */
export interface Flavour {
  readonly name: string
  readonly version: Version
  readonly settings?: string
  /** Whether it fetches parts of a large layer in parallel. */
  readonly inParts: boolean
}

const buffer = 1024 * 1024

/** Parallel fetches of containerd 2.1, off by default. Other settings decide which of the two plugins pulls. */
export const parallelFetch = [
  `[plugins."io.containerd.transfer.v1.local"]\nconcurrent_layer_fetch_buffer = ${buffer}`,
  `[plugins."io.containerd.cri.v1.images"]\nconcurrent_layer_fetch_buffer = ${buffer}`
].join("\n")

const plain = (version: Version): Flavour => ({ name: version, version, inParts: false })
const parallel: Flavour = { name: "2.1 parallel", version: "2.1", settings: parallelFetch, inParts: true }

export const clients: ReadonlyArray<Client> = ["CRI", "ctr"]
export const companies: ReadonlyArray<Company> = ["upstream", "good peer", "second node"]

/** Cells that run one after the other on the same nodes. */
export interface Part {
  readonly flavour: Flavour
  readonly client: Client
  readonly company: Company
  /** Whether all members share a cluster key, and the mirrors' mode is single flight. */
  readonly singleFlight: boolean
  readonly cells: ReadonlyArray<Cell>
}

/** Text filters for cells; empty for all. */
export interface Filter {
  /** Only faults whose name contains this text. */
  readonly fault: string
  readonly request: string
}

/** Whether a fault makes sense in a company: a freeze takes another peer, and with one a changed clock would show nothing. */
const isIn = (company: Company, fault: Fault): boolean =>
  fault === "restart beside a freeze"
    ? company === "good peer"
    : clockChanges[fault] === undefined || company === "upstream"

const cellsOf = (flavour: Flavour, company: Company, filter: Filter): ReadonlyArray<Cell> =>
  faults.filter((fault) => fault.includes(filter.fault) && isIn(company, fault)).flatMap((fault) =>
    requestKinds
      // Only large layers are asked for in parts.
      .filter((kind) => kind.includes(filter.request) && (!flavour.inParts || kind === "GET large layer"))
      .map((kind) => ({ fault, kind, company }))
  )

/** The parts of `--quick`: every fault with the newest containerd, pulled as the kubelet pulls, and once by ctr. */
const isQuick = ({ client, company, flavour }: Part): boolean =>
  flavour.version === "2.1" && (client === "CRI" || (company === "upstream" && !flavour.inParts))

/** The parts of a run; parts without cells are left out. */
export const make = (options: {
  readonly versions: ReadonlyArray<Version>
  readonly clients: ReadonlyArray<Client>
  readonly quick: boolean
  readonly singleFlight: boolean
  readonly filter: Filter
}): ReadonlyArray<Part> => {
  const { clients, filter, quick, singleFlight, versions } = options
  const flavours = [...versions.map(plain), ...(versions.includes("2.1") ? [parallel] : [])]
  const parts = flavours.flatMap((flavour) =>
    clients.flatMap((client) =>
      // Without single flight, nodes that pull at the same moment do not know of each other.
      companies.filter((company) => singleFlight || company !== "second node").map((company): Part => ({
        flavour,
        client,
        company,
        singleFlight,
        cells: cellsOf(flavour, company, filter)
      }))
    )
  )
  return parts.filter((part) => part.cells.length > 0 && (!quick || isQuick(part)))
}
