/** What a run measures: which containerd, asked by whom, in which company, with which faults. */
import type { Version } from "@spegel-ts/testing/containerd/ContainerdPackages"
import { clockChanges, type Fault, faults, requestKinds } from "./Fault.ts"
import type { Client } from "./Lane.ts"
import type { Cell, Company } from "./Matrix.ts"

/** A containerd as it may be configured. */
export interface Flavour {
  readonly name: string
  readonly version: Version
  readonly settings?: string
  /** Whether it asks for large layers in parts that it fetches side by side. */
  readonly inParts: boolean
}

const buffer = 1024 * 1024

/** Settings of containerd 2.1, off by default. Both places: which of the two pulls depends on other settings. */
export const parallelFetch = [
  `[plugins."io.containerd.transfer.v1.local"]\nconcurrent_layer_fetch_buffer = ${buffer}`,
  `[plugins."io.containerd.cri.v1.images"]\nconcurrent_layer_fetch_buffer = ${buffer}`
].join("\n")

const plain = (version: Version): Flavour => ({ name: version, version, inParts: false })
const parallel: Flavour = { name: "2.1 parallel", version: "2.1", settings: parallelFetch, inParts: true }

export const clients: ReadonlyArray<Client> = ["CRI", "ctr"]
export const companies: ReadonlyArray<Company> = ["upstream", "good peer"]

/** Cells that run one after the other on the same nodes. */
export interface Part {
  readonly flavour: Flavour
  readonly client: Client
  readonly company: Company
  readonly cells: ReadonlyArray<Cell>
}

export interface Filter {
  /** Only what contains the text. */
  readonly fault: string
  readonly request: string
}

/** Where a fault means something: it takes another peer to freeze, and none to go on with where the clock is set. */
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

/** For a change's own checks: every fault with the newest containerd, as the kubelet asks it, and once by ctr. */
const isQuick = ({ client, company, flavour }: Part): boolean =>
  flavour.version === "2.1" && (client === "CRI" || (company === "upstream" && !flavour.inParts))

export const make = (options: {
  readonly versions: ReadonlyArray<Version>
  readonly clients: ReadonlyArray<Client>
  readonly quick: boolean
  readonly filter: Filter
}): ReadonlyArray<Part> => {
  const { clients, filter, quick, versions } = options
  const flavours = [...versions.map(plain), ...(versions.includes("2.1") ? [parallel] : [])]
  const parts = flavours.flatMap((flavour) =>
    clients.flatMap((client) =>
      companies.map((company): Part => ({ flavour, client, company, cells: cellsOf(flavour, company, filter) }))
    )
  )
  return parts.filter((part) => part.cells.length > 0 && (!quick || isQuick(part)))
}
