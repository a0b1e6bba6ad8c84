/** What the chart does with the cluster key, as helm renders it, also beside a cluster that has the release already. */
import { assert, beforeAll, describe, it } from "@effect/vitest"
import * as Kubeconfig from "@spegel-ts/testing/kubernetes/Kubeconfig"
import { Effect } from "effect"
import { createServer } from "node:http"
import * as GoSpegelValues from "./GoSpegelValues.ts"
import * as HelmChart from "./HelmChart.ts"

type Objects = ReadonlyArray<HelmChart.KubernetesObject>

interface Mount {
  readonly name: string
}

interface Container {
  readonly name: string
  readonly args: ReadonlyArray<string>
  readonly env?: ReadonlyArray<{ readonly name: string; readonly valueFrom?: object }>
  readonly volumeMounts?: ReadonlyArray<Mount>
}

const ofKind = (objects: Objects, kind: string, hook?: string) =>
  objects.filter((object) => object.kind === kind && object.metadata.annotations?.["helm.sh/hook"] === hook)

const keyHook = "pre-install,pre-upgrade"
const only = <A>(list: ReadonlyArray<A>): A => {
  assert.lengthOf(list, 1)
  return list[0] ?? assert.fail()
}
const mirror = (objects: Objects) => only(ofKind(objects, "DaemonSet"))["spec"].template.spec
const containerOf = (objects: Objects, name: string): Container => {
  const { containers, initContainers } = mirror(objects) as Record<string, ReadonlyArray<Container>>
  return only([...containers ?? [], ...initContainers ?? []].filter((container) => container.name === name))
}
const flag = ({ args }: Container, name: string) =>
  args.filter((arg) => arg.startsWith(`--${name}=`)).map((arg) => arg.slice(name.length + 3))
const modeOf = (objects: Objects) => flag(containerOf(objects, "registry"), "peer-auth")

/** The name of the Job that makes the Secret. */
const jobOf = (objects: Objects) => only(ofKind(objects, "Job", keyHook))

const missing = HelmChart.missingPrerequisite()

describe.skipIf(missing !== undefined)(
  `the chart's cluster key${missing === undefined ? "" : ` (skipped: ${missing})`}`,
  () => {
    beforeAll(() => HelmChart.build(), 900_000)

    it("is rendered alike each time, and is nowhere in what is rendered", async () => {
      const [first, second] = await Promise.all([HelmChart.command("template", {}), HelmChart.command("template", {})])
      assert.strictEqual(first.code, 0, first.stderr)
      assert.strictEqual(first.stdout, second.stdout)
      assert.lengthOf((await HelmChart.render()).filter(({ kind }) => kind === "Secret"), 0)
    })

    it("is made by a Job with the rights to get that one Secret and to create, and no others", async () => {
      const objects = await HelmChart.render({ release: "other" })
      const [account, role, binding, job] = ["ServiceAccount", "Role", "RoleBinding", "Job"].map((kind) =>
        only(ofKind(objects, kind, keyHook))
      )
      const secret = "other-spegel-cluster-key"
      assert.deepStrictEqual(role?.["rules"], [
        { apiGroups: [""], resources: ["secrets"], resourceNames: [secret], verbs: ["get"] },
        { apiGroups: [""], resources: ["secrets"], verbs: ["create"] }
      ])
      assert.deepStrictEqual(binding?.["subjects"], [
        { kind: "ServiceAccount", name: account?.metadata.name, namespace: "mirrors" }
      ])
      assert.strictEqual(binding?.["roleRef"].name, role?.metadata.name)
      const { spec } = job?.["spec"].template ?? assert.fail()
      assert.strictEqual(spec.serviceAccountName, account?.metadata.name)
      const container = only(spec.containers as ReadonlyArray<Container>)
      assert.deepStrictEqual(container.args.slice(0, 2), ["cluster-key", "ensure"])
      assert.deepStrictEqual([flag(container, "namespace"), flag(container, "secret")], [["mirrors"], [secret]])
      for (const { metadata } of [account, role, binding, job].map((object) => object ?? assert.fail())) {
        const { "helm.sh/hook-delete-policy": policy, "helm.sh/hook-weight": weight } = metadata.annotations ?? {}
        assert.strictEqual(policy, "before-hook-creation,hook-succeeded")
        assert.strictEqual(weight, metadata === job?.metadata ? "0" : "-1")
      }
      // It says why before Kubernetes ends it, and helm waits for 5 minutes.
      assert.isBelow(job?.["spec"].activeDeadlineSeconds, 300)
      assert.isAbove(job?.["spec"].activeDeadlineSeconds, 2 * Number.parseInt(flag(container, "timeout")[0] ?? "", 10))
      for (const { key } of spec.tolerations) assert.isString(key)
      assert.deepStrictEqual(mirror(objects).volumes.find(({ name }: Mount) => name === "cluster-key"), {
        name: "cluster-key",
        secret: { secretName: secret, defaultMode: 0o440, items: [{ key: "key", path: "key" }] }
      })
    })

    it("has a Job whose name changes with what it runs, so that it can be applied again", async () => {
      const nameOf = async (rendering: HelmChart.Rendering) => jobOf(await HelmChart.render(rendering)).metadata.name
      const name = await nameOf({})
      assert.match(name, /^spegel-key-[0-9a-f]{8}$/)
      assert.strictEqual(
        await nameOf({ values: { spegel: { mirrorResolveRetries: 5 } }, flags: ["--is-upgrade"] }),
        name
      )
      assert.notStrictEqual(await nameOf({ values: { image: { tag: "v9" } } }), name)
      const long = await nameOf({ values: { fullnameOverride: "m".repeat(60) } })
      assert.isAtMost(long.length, 63)
    })

    it("waits on no node that a mirror has to make ready first", async () => {
      const taint = "example.com/starting"
      const objects = await HelmChart.render({ values: { nodeReadiness: { enabled: true, taint } } })
      assert.deepInclude(jobOf(objects)["spec"].template.spec.tolerations, { key: taint, operator: "Exists" })
    })

    it("is mounted read-only where it is used, and the mirror's group can read it", async () => {
      const mountsOf = (objects: Objects) =>
        ["registry", "configuration", "data-dir"].map((name) => {
          const container = containerOf(objects, name)
          const mount = container.volumeMounts?.find((mount) => mount.name === "cluster-key")
          return { mount, file: flag(container, "cluster-key-file") }
        })
      const objects = await HelmChart.render()
      const mount = { name: "cluster-key", mountPath: "/etc/secrets/cluster-key", readOnly: true }
      const used = { mount, file: ["/etc/secrets/cluster-key/key"] }
      assert.deepStrictEqual(mountsOf(objects), [used, used, { mount: undefined, file: [] }])
      assert.notProperty(mirror(objects).securityContext, "fsGroup")
      const groupOf = async (values: HelmChart.Values) =>
        mirror(await HelmChart.render({ values })).securityContext?.fsGroup
      assert.strictEqual(await groupOf({ securityContext: { runAsGroup: 412 } }), 412)
      assert.strictEqual(
        await groupOf({ securityContext: { runAsGroup: 412 }, podSecurityContext: { fsGroup: 7 } }),
        7
      )
      assert.isUndefined(await groupOf({ securityContext: { runAsGroup: 412 }, clusterKey: { enabled: false } }))
      const cleanup = only(ofKind(objects, "DaemonSet", "post-delete"))["spec"].template.spec
      assert.notInclude(JSON.stringify(cleanup), "cluster-key")
    })

    it("names the node in its containerd's token, and tells the mirror its zone", async () => {
      const objects = await HelmChart.render()
      const nodeName = { name: "NODE_NAME", valueFrom: { fieldRef: { fieldPath: "spec.nodeName" } } }
      for (const name of ["registry", "configuration"]) {
        const container = containerOf(objects, name)
        assert.deepStrictEqual(flag(container, "node-name"), ["$(NODE_NAME)"])
        assert.deepInclude([...container.env ?? []], nodeName)
      }
      assert.deepInclude([...containerOf(objects, "registry").env ?? []], {
        name: "ZONE",
        valueFrom: { fieldRef: { fieldPath: "metadata.labels['topology.kubernetes.io/zone']" } }
      })
    })

    it("is the user's where a Secret is named: nothing makes it, nothing removes it", async () => {
      const objects = await HelmChart.render({ values: { clusterKey: { existingSecret: "mine" } } })
      assert.lengthOf(objects.filter(({ metadata }) => metadata.annotations?.["helm.sh/hook"] === keyHook), 0)
      const { secret } = mirror(objects).volumes.find(({ name }: Mount) => name === "cluster-key")
      assert.strictEqual(secret.secretName, "mine")
      assert.notInclude(JSON.stringify(ofKind(objects, "Job", "post-delete")), "cluster-key")
    })

    it("is not there where it is off", async () => {
      for (
        const values of [{ clusterKey: { enabled: false } }, { peerAuth: "off" }, { peerAuth: false }] as const
      ) {
        const objects = await HelmChart.render({ values })
        const others = objects.filter(({ metadata }) => metadata.annotations?.["helm.sh/hook"] !== "post-delete")
        for (const word of ["cluster-key", "peer-auth"]) {
          assert.notInclude(JSON.stringify(others), word, JSON.stringify(values))
        }
        // It may have been there before it was switched off.
        const removed = JSON.stringify(ofKind(objects, "Job", "post-delete")).includes("cluster-key")
        assert.strictEqual(removed, !("clusterKey" in values))
      }
      const refused = await HelmChart.command("template", {
        values: { clusterKey: { enabled: false }, peerAuth: "require" }
      })
      assert.include(refused.stderr, "peerAuth: require needs clusterKey.enabled")
    })

    it("is removed at uninstall unless it is to be kept", async () => {
      const removal = async (clusterKey: HelmChart.Values["clusterKey"]) => {
        const objects = await HelmChart.render({ values: { clusterKey: clusterKey ?? {} } })
        const { containers } = only(ofKind(objects, "Job", "post-delete"))["spec"].template.spec
        return (containers as ReadonlyArray<Container>).filter(({ name }) => name === "cluster-key")
      }
      const container = only(await removal({}))
      assert.deepStrictEqual(container.args.slice(0, 2), ["cluster-key", "remove"])
      assert.deepStrictEqual(flag(container, "secret"), ["spegel-cluster-key"])
      assert.deepStrictEqual(flag(container, "daemonset"), ["spegel"])
      assert.lengthOf(await removal({ keep: true }), 0)
      const objects = await HelmChart.render({ values: { cleanup: { enabled: false } } })
      assert.lengthOf(objects.filter(({ metadata }) => metadata.annotations?.["helm.sh/hook"] === "post-delete"), 0)
    })

    it("is required by a new release, and preferred by an upgrade that tells nothing of the cluster", async () => {
      assert.deepStrictEqual(modeOf(await HelmChart.render()), ["require"])
      assert.deepStrictEqual(modeOf(await HelmChart.render({ flags: ["--is-upgrade"] })), ["prefer"])
      for (const peerAuth of ["require", "prefer"] as const) {
        for (const flags of [[], ["--is-upgrade"]]) {
          assert.deepStrictEqual(modeOf(await HelmChart.render({ flags, values: { peerAuth } })), [peerAuth])
        }
      }
    })

    it("takes Go Spegel's values as before", async () => {
      assert.deepStrictEqual(modeOf(await HelmChart.render({ values: GoSpegelValues.current })), ["require"])
    })

    it.live("stays as it is in the cluster: a release without a key goes over by prefer, again and again", () =>
      Effect.gen(function*() {
        let args: ReadonlyArray<string> | undefined
        const api = yield* startApi(() => args)
        const modeWith = (live: ReadonlyArray<string> | undefined, values: HelmChart.Values = {}) =>
          Effect.promise(async () => {
            args = live
            const flags = ["--is-upgrade", "--dry-run=server", "--kubeconfig", api]
            return only(modeOf(await HelmChart.render({ flags, values })))
          })
        assert.strictEqual(yield* modeWith(["registry"]), "prefer")
        const key = "--cluster-key-file=/etc/secrets/cluster-key/key"
        assert.strictEqual(yield* modeWith(["registry", key, "--peer-auth=prefer"]), "prefer")
        assert.strictEqual(yield* modeWith(["registry", key, "--peer-auth=require"]), "require")
        assert.strictEqual(yield* modeWith(["registry", key, "--peer-auth=require"], { peerAuth: "prefer" }), "prefer")
        assert.strictEqual(yield* modeWith(["registry"], { peerAuth: "require" }), "require")
        assert.strictEqual(yield* modeWith(undefined), "prefer")
      }))

    it("tells in its notes what is asked of peers, and what becomes of the Secret", async () => {
      const notes = (values: HelmChart.Values) => HelmChart.notes({ values })
      assert.include(await notes({}), "Nobody else is served or believed (peerAuth: require)")
      assert.include(await notes({}), "The Secret goes at uninstall")
      const prefer = await notes({ peerAuth: "prefer", clusterKey: { keep: true } })
      assert.include(prefer, "--set peerAuth=require")
      assert.include(prefer, "The Secret stays at uninstall (clusterKey.keep: true)")
      assert.include(
        await notes({ cleanup: { enabled: false } }),
        "The Secret stays at uninstall (cleanup.enabled: false)"
      )
      const own = await notes({ clusterKey: { existingSecret: "mine" } })
      assert.include(own, "in the Secret mine")
      assert.include(own, "The Secret stays at uninstall.")
      for (const values of [{ peerAuth: "off" }, { clusterKey: { enabled: false } }] as const) {
        assert.include(await notes(values), "Peers prove nothing (peerAuth: off)")
      }
    })
  }
)

/** As much of an API server as helm asks for a release's DaemonSet, whose mirror has these flags; gives a kubeconfig. */
const startApi = Effect.fnUntraced(function*(args: () => ReadonlyArray<string> | undefined) {
  const daemonSet = (live: ReadonlyArray<string>) => ({
    apiVersion: "apps/v1",
    kind: "DaemonSet",
    metadata: { name: "spegel", namespace: "mirrors" },
    spec: { template: { spec: { containers: [{ name: "other", args: [] }, { name: "registry", args: live }] } } }
  })
  const resources = [{
    name: "daemonsets",
    singularName: "daemonset",
    namespaced: true,
    kind: "DaemonSet",
    verbs: ["get"]
  }]
  const version = { groupVersion: "apps/v1", version: "v1" }
  const answers: Readonly<Record<string, () => unknown>> = {
    "/version": () => ({ major: "1", minor: "34", gitVersion: "v1.34.0" }),
    "/api": () => ({ kind: "APIVersions", versions: [] }),
    "/apis": () => ({
      kind: "APIGroupList",
      apiVersion: "v1",
      groups: [{ name: "apps", versions: [version], preferredVersion: version }]
    }),
    "/apis/apps/v1": () => ({ kind: "APIResourceList", groupVersion: "apps/v1", resources }),
    "/apis/apps/v1/namespaces/mirrors/daemonsets/spegel": () => {
      const live = args()
      return live === undefined ? undefined : daemonSet(live)
    }
  }
  const server = createServer((request, response) => {
    const found = answers[(request.url ?? "").split("?", 1)[0] ?? ""]?.()
    const missing = { kind: "Status", apiVersion: "v1", status: "Failure", reason: "NotFound", code: 404 }
    response.writeHead(found === undefined ? 404 : 200, { "content-type": "application/json" })
    response.end(JSON.stringify(found ?? missing))
  })
  const kubeconfig = yield* Kubeconfig.serve(server)
  return kubeconfig
})
