import { Transfer } from "@spegel-ts/transfer/Transfer"
import { transferConformance } from "@spegel-ts/transfer/TransferConformance"

transferConformance("the portable layer", Transfer.layerPortable)
transferConformance("the zero-copy layer", Transfer.layerZeroCopy)
