/** Installations into a namespace with Pod Security rules. */
import { Effect } from "effect"
import { eventually } from "../Cluster.ts"
import type { Installation } from "../Installation.ts"
import * as Pods from "../Pods.ts"
import * as Steps from "../Steps.ts"

const enforce = "pod-security.kubernetes.io/enforce"

/** Waits for events of the namespace about pods that it refused. */
const refusals = ({ cluster, namespace }: Installation, level: string) =>
  eventually(
    "events tell that the pods are refused",
    "30 seconds",
    Effect.flatMap(Pods.eventsOf(cluster, namespace), ({ items }) => {
      const said = items.filter(({ message = "", reason }) =>
        reason === "FailedCreate" && message.includes(`violates PodSecurity "${level}:latest"`)
      )
      return Steps.promise(said.length > 0, `${items.length} events say nothing of it`)
    })
  )

/**
 * A namespace that enforces a level below `privileged` refuses the pods. The notes say which label it needs; with that the
 * mirrors come without another installation.
 */
export const podSecurity = Effect.fnUntraced(function*(installation: Installation) {
  const { apply, cluster, install, namespace, pullEverywhere, remove, rolledOut } = installation
  const level = (level: string) =>
    cluster.kubectl(["label", "--overwrite", "namespace", namespace, `${enforce}=${level}`])
  const pulls: Array<string> = []
  for (const refusing of ["baseline", "restricted"]) {
    yield* remove
    yield* level(refusing)
    const notes = yield* install()
    yield* Steps.promise(notes.includes(`${enforce}=privileged`), `the notes do not name the label: ${notes}`)
    yield* refusals(installation, refusing)
    yield* level("privileged")
    yield* rolledOut
    pulls.push(`${refusing}, then privileged: ${yield* pullEverywhere()}`)
  }
  yield* cluster.kubectl(["label", "namespace", namespace, `${enforce}-`])
  yield* apply()
  return pulls.join("; ")
})
