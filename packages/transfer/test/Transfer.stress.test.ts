import { Transfer } from "@spegel-ts/transfer/Transfer"
import { transferStress } from "@spegel-ts/transfer/TransferStress"

const trials = Number(process.env["SPEGEL_TRANSFER_TRIALS"] ?? 2000)

transferStress("the portable layer", Transfer.layerPortable, { trials, concurrency: 32 })
transferStress("the zero-copy layer", Transfer.layerZeroCopy, { trials, concurrency: 32 })
