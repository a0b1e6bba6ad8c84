import * as ApiServer from "@spegel-ts/testing/kubernetes/ApiServer"
import { electionSuite } from "@spegel-ts/testing/kubernetes/ElectionSuite"
import * as Field from "@spegel-ts/testing/kubernetes/Field"
import { Effect } from "effect"

electionSuite({
  name: "50 candidates in 5 processes",
  missing: ApiServer.missingPrerequisite(process.env),
  make: Effect.flatMap(
    ApiServer.start,
    (server) => Field.start({ server, name: "election", processes: 5, perProcess: 10 })
  )
})
