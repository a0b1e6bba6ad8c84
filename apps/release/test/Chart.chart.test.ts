import { assert, beforeAll, describe, it } from "@effect/vitest"
import * as ChartValues from "@spegel-ts/release/ChartValues"
import * as ImageDefinition from "@spegel-ts/release/ImageDefinition"
import { version } from "@spegel-ts/spegel/Version"
import { Effect } from "effect"
import { glob, readFile } from "node:fs/promises"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { parse } from "yaml"
import * as GoSpegelValues from "./GoSpegelValues.ts"
import * as HelmChart from "./HelmChart.ts"

const repository = fileURLToPath(new URL("../../..", import.meta.url))
const read = (...path: ReadonlyArray<string>) => readFile(join(HelmChart.directory, ...path), "utf8")

type Objects = ReadonlyArray<HelmChart.KubernetesObject>

/** Values that switch on what is off, and off what is on. */
const table: Readonly<Record<string, HelmChart.Rendering>> = {
  "the defaults": {},
  "the defaults before Kubernetes 1.34": { kubernetes: "1.30.0" },
  "everything that is off": {
    values: {
      imagePullSecrets: [{ name: "pull" }],
      image: { digest: `sha256:${"a".repeat(64)}` },
      serviceAccount: { annotations: { a: "b" } },
      daemonsetAnnotations: { a: "b" },
      podAnnotations: { a: "b" },
      commonLabels: { team: "platform" },
      updateStrategy: { type: "RollingUpdate", rollingUpdate: { maxUnavailable: "10%" } },
      shutdown: { delaySeconds: 10, graceSeconds: 120 },
      affinity: {
        nodeAffinity: {
          requiredDuringSchedulingIgnoredDuringExecution: {
            nodeSelectorTerms: [{ matchExpressions: [{ key: "spegel", operator: "NotIn", values: ["off"] }] }]
          }
        }
      },
      service: {
        registry: { annotations: { a: "b" }, nodeIp: "10.0.0.1" },
        metrics: { annotations: { a: "b" } },
        bootstrap: { annotations: { a: "b" } },
        cleanup: { annotations: { a: "b" } }
      },
      serviceMonitor: { enabled: true, labels: { release: "prometheus" }, relabelings: [{ action: "labeldrop" }] },
      prometheusRule: { enabled: true, labels: { release: "prometheus" } },
      cleanup: { timeoutSeconds: 30, tolerations: [{ key: "a", operator: "Exists" }] },
      grafanaDashboard: {
        enabled: true,
        labels: { grafana_dashboard: "1" },
        annotations: { grafana_folder: "Spegel" }
      },
      basicAuthSecretName: "credentials",
      verticalPodAutoscaler: { enabled: true, minAllowed: { memory: "128Mi" }, controlledResources: ["memory"] },
      networkPolicy: {
        enabled: true,
        additionalRouterPeers: [{ namespaceSelector: { matchLabels: { a: "b" } } }],
        additionalEgress: [{ ports: [{ port: 4318, protocol: "TCP" }] }]
      },
      spegel: {
        mirroredRegistries: ["https://docker.io", "https://ghcr.io"],
        additionalMirrorTargets: ["http://10.0.0.9:5000"],
        registryFilters: [String.raw`^docker\.io/`, ":latest$"],
        containerdConfigPath: "/etc/containerd/config.toml",
        bootstrapKinds: ["dns", "kubernetes"],
        extraArgs: ["--peer-cidrs=10.0.0.0/8"],
        maxBodyMemory: 201_326_592,
        otel: { endpoint: "otel-collector:4318", insecure: true, sampler: 0.1 },
        extraEnv: [{
          name: "OTEL_EXPORTER_OTLP_HEADERS",
          valueFrom: { secretKeyRef: { name: "otel", key: "headers" } }
        }]
      },
      extraVolumes: [{ name: "extra", emptyDir: {} }],
      extraInitContainers: [{
        name: "before",
        image: "busybox",
        volumeMounts: [{ name: "extra", mountPath: "/extra" }]
      }]
    }
  },
  "everything that is on, off": {
    values: {
      livenessProbe: { enabled: false },
      clusterKey: { enabled: false },
      podSecurityContext: { seccompProfile: null },
      nodeSelector: { "kubernetes.io/os": null },
      tolerations: [],
      spegel: {
        persistence: { enabled: false },
        containerdMirrorAdd: false,
        resolveTags: false,
        debugWebEnabled: false
      }
    }
  },
  "an identity in memory only": { values: { spegel: { persistence: { enabled: false } } } },
  "hosts.toml files that others write": { values: { spegel: { containerdMirrorAdd: false } } },
  "a Secret of the user's with the key": { values: { clusterKey: { existingSecret: "mine" }, peerAuth: "prefer" } },
  "a key to remove, and nothing to restore": {
    values: { spegel: { persistence: { enabled: false }, containerdMirrorAdd: false } }
  },
  "a Lease only": { values: { spegel: { bootstrapKinds: ["kubernetes"] } }, release: "other" },
  "a taint of new nodes": { values: { nodeReadiness: { enabled: true, taint: "example.com/starting" } } },
  "Grafana's operator": {
    values: { grafanaDashboard: { enabled: true, mode: "GrafanaOperator", grafanaOperator: { folder: "Spegel" } } }
  },
  "k3s": {
    values: {
      spegel: {
        containerdSock: "/run/k3s/containerd/containerd.sock",
        containerdContentPath: "/var/lib/rancher/k3s/agent/containerd/io.containerd.content.v1.content",
        containerdRegistryConfigPath: "/var/lib/rancher/k3s/agent/etc/containerd/certs.d"
      }
    }
  },
  "all values that Go Spegel has": { values: GoSpegelValues.current },
  "all values that Go Spegel has, before 1.34": { kubernetes: "1.30.0", values: GoSpegelValues.current },
  "all values that Go Spegel had": { values: GoSpegelValues.former },
  // What a release of Spegel 0.6 may have set.
  "values of an older Spegel": {
    kubernetes: "1.33.0",
    values: {
      image: { tag: "v0.1.0" },
      securityContext: { readOnlyRootFilesystem: true },
      service: {
        registry: {
          nodePort: 30021,
          hostPort: 30020,
          topologyAwareHintsEnabled: false,
          usePreferSameNodeTrafficDistribution: false
        }
      },
      spegel: { mirroredRegistries: ["https://ghcr.io"], mirrorResolveTimeout: "1m30s", prependExisting: false }
    }
  }
}

const find = (objects: Objects, kind: string, name: string): HelmChart.KubernetesObject => {
  const found = objects.filter((object) => object.kind === kind && object.metadata.name === name)
  assert.lengthOf(found, 1, `${kind} ${name}`)
  return found[0] ?? assert.fail()
}

const podsOf = (objects: Objects) =>
  objects.filter(({ kind }) => kind === "DaemonSet" || kind === "Job").map(({ metadata, spec }) => ({
    name: metadata.name,
    labels: spec.template.metadata.labels as Readonly<Record<string, string>>,
    annotations: spec.template.metadata.annotations as Readonly<Record<string, string>> | undefined,
    spec: spec.template.spec
  }))

/** Pods of `helm test` among them. */
const allPodsOf = (objects: Objects) => [
  ...podsOf(objects).map(({ spec }) => ({ spec })),
  ...objects.filter(({ kind }) => kind === "Pod").map(({ spec }) => ({ spec }))
]

const hooksOf = (objects: Objects, hook: string) =>
  objects.filter(({ metadata }) => metadata.annotations?.["helm.sh/hook"] === hook)

interface Container {
  readonly name: string
  readonly args: ReadonlyArray<string>
  readonly image: string
  // oxlint-disable-next-line typescript/no-explicit-any
  readonly [field: string]: any
}

const containersOf = (pod: { readonly spec: Record<string, unknown> }): ReadonlyArray<Container> => [
  ...(pod.spec["initContainers"] ?? []) as ReadonlyArray<Container>,
  ...pod.spec["containers"] as ReadonlyArray<Container>
]

const flag = ({ args }: Container, name: string) =>
  args.filter((arg) => arg.startsWith(`--${name}=`)).map((arg) => arg.slice(name.length + 3))

const selects = (selector: Readonly<Record<string, string>>, labels: Readonly<Record<string, string>>) =>
  Object.entries(selector).every(([key, value]) => labels[key] === value)

const help = new Map<string, Promise<HelmChart.Finished>>()

/** What a command of `spegel` tells of itself. */
const helpOf = async (command: string) => {
  const main = join(repository, "apps/spegel/bundle/main.js")
  const asked = help.get(command) ?? HelmChart.run(process.execPath, [main, ...command.split(" "), "--help"])
  help.set(command, asked)
  return (await asked).stdout
}

const flagsOf = async (command: string) => (await helpOf(command)).match(/--[a-z-]+/g) ?? []

/** Kinds whose types are not at hand. */
const foreign = new Set(["GrafanaDashboard"])

const missing = HelmChart.missingPrerequisite()

describe.skipIf(missing !== undefined)(`the chart${missing === undefined ? "" : ` (skipped: ${missing})`}`, () => {
  beforeAll(() => HelmChart.build(), 900_000)

  for (const [name, rendering] of Object.entries(table)) {
    describe(`with ${name}`, () => {
      let objects: Objects = []
      beforeAll(async () => {
        objects = await HelmChart.render(rendering)
      })

      it("passes helm lint", async () => {
        const { code, stdout } = await HelmChart.command("lint", rendering)
        assert.strictEqual(code, 0, stdout)
      })

      it("is made of objects as Kubernetes and its operators define them", async () => {
        const core = objects.filter(({ kind }) => !foreign.has(kind))
        const { code, stderr, stdout } = await HelmChart.validate(core)
        assert.strictEqual(code, 0, stderr)
        assert.lengthOf(stdout.trim().split("\n"), core.length)
      })

      it("has all objects in the release's namespace, each once, with the release's labels", () => {
        const names = objects.map(({ kind, metadata }) => `${kind} ${metadata.name}`)
        assert.lengthOf(new Set(names), names.length)
        for (const { kind, metadata } of objects) {
          assert.strictEqual(metadata.namespace, kind.startsWith("Cluster") ? undefined : "mirrors")
          assert.strictEqual(metadata.labels["app.kubernetes.io/instance"], rendering.release ?? "spegel")
          assert.strictEqual(metadata.labels["app.kubernetes.io/managed-by"], "Helm")
        }
      })

      it("gives containers no more than they need", () => {
        for (const pod of allPodsOf(objects)) {
          assert.isFalse(pod.spec.enableServiceLinks)
          for (const container of containersOf(pod).filter(({ name }) => name !== "before")) {
            const writesToNode = ["data-dir", "configuration", "cleanup"].includes(container.name)
            assert.deepStrictEqual(container["securityContext"], {
              allowPrivilegeEscalation: false,
              readOnlyRootFilesystem: true,
              capabilities: { drop: ["ALL"] },
              runAsUser: writesToNode ? 0 : 65532,
              runAsGroup: 0,
              runAsNonRoot: !writesToNode
            }, container.name)
            const writable = (container["volumeMounts"] ?? []).filter((mount: { readOnly?: true }) => !mount.readOnly)
            assert.isAtMost(writable.length, 1, container.name)
          }
          for (const field of ["hostNetwork", "hostPID", "hostIPC"]) assert.notProperty(pod.spec, field)
        }
      })

      it("mounts what it declares, and declares what it mounts", () => {
        for (const pod of podsOf(objects)) {
          const declared = ((pod.spec.volumes ?? []) as ReadonlyArray<{ readonly name: string }>).map(({ name }) =>
            name
          )
          const mounted = containersOf(pod).flatMap((container) =>
            (container["volumeMounts"] ?? []).map((mount: { readonly name: string }) => mount.name)
          )
          assert.sameMembers([...new Set(mounted)], declared)
        }
      })

      it("has services and selectors that find the pods they are for", () => {
        const pods = podsOf(objects)
        for (const { kind, metadata, spec } of objects) {
          const selector = kind === "Service"
            ? spec.selector
            : kind === "NetworkPolicy"
            ? spec.podSelector.matchLabels
            : kind === "DaemonSet"
            ? spec.selector.matchLabels
            : undefined
          if (selector === undefined) continue
          const found = pods.filter(({ labels }) => selects(selector, labels)).map(({ name }) => name)
          const component = metadata.name.endsWith("-cleanup") ? "-cleanup" : ""
          assert.lengthOf(found, 1, `${kind} ${metadata.name}`)
          assert.isTrue(found[0]?.endsWith(component), found[0])
        }
        for (const { spec } of objects.filter(({ kind }) => kind === "ServiceMonitor")) {
          const services = objects.filter(({ kind, metadata }) =>
            kind === "Service" && selects(spec.selector.matchLabels, metadata.labels)
          )
          assert.deepStrictEqual(services.map(({ spec }) => spec.ports[0].name), [spec.endpoints[0].port])
        }
      })

      it("gives a token and rights only where the API is used", () => {
        const lease = rendering.values?.spegel?.bootstrapKinds?.includes("kubernetes") ?? false
        const taint = rendering.values?.nodeReadiness?.enabled ?? false
        const withToken = podsOf(objects).filter(({ spec }) => spec.automountServiceAccountToken !== false)
        const hooks = ["post-delete", "pre-install,pre-upgrade"].flatMap((hook) => hooksOf(objects, hook))
        const jobs = hooks.filter(({ kind }) => kind === "Job").map(({ metadata }) => metadata.name)
        assert.sameMembers(withToken.map(({ name }) => name), [
          ...(lease || taint ? [podsOf(objects)[0]?.name] : []),
          ...jobs
        ])
        const rights = objects.filter((object) => /Role|Lease/.test(object.kind) && !hooks.includes(object))
        assert.sameMembers(rights.map(({ kind }) => kind), [
          ...(lease ? ["Lease", "Role", "RoleBinding"] : []),
          ...(taint ? ["ClusterRole", "ClusterRoleBinding"] : [])
        ])
        const rulesOf = (kind: string) => rights.find((object) => object.kind === kind)?.["rules"]
        const registry = containersOf(podsOf(objects)[0] ?? assert.fail()).at(-1) ?? assert.fail()
        if (lease) {
          const name = rights.find(({ kind }) => kind === "Lease")?.metadata.name
          assert.deepStrictEqual(rulesOf("Role"), [{
            apiGroups: ["coordination.k8s.io"],
            resources: ["leases"],
            resourceNames: [name],
            verbs: ["get", "list", "watch", "update"]
          }])
          assert.deepStrictEqual(flag(registry, "leader-election-name"), [name])
          assert.deepStrictEqual(flag(registry, "leader-election-namespace"), ["mirrors"])
        }
        if (taint) {
          assert.deepStrictEqual(rulesOf("ClusterRole"), [{
            apiGroups: [""],
            resources: ["nodes"],
            verbs: ["get", "patch"]
          }])
          assert.deepStrictEqual(flag(registry, "node-readiness-taint"), ["example.com/starting"])
        }
      })

      it("starts on a node without images, and knows a cloned identity by the node's name", () => {
        const pod = podsOf(objects)[0] ?? assert.fail()
        const registry = containersOf(pod).at(-1) ?? assert.fail()
        assert.deepStrictEqual(flag(registry, "node-name"), ["$(NODE_NAME)"])
        assert.deepInclude(registry["env"], {
          name: "NODE_NAME",
          valueFrom: { fieldRef: { fieldPath: "spec.nodeName" } }
        })
        const content = pod.spec.volumes.find(({ name }: { readonly name: string }) => name === "containerd-content")
        assert.strictEqual(content?.hostPath?.type, "DirectoryOrCreate")
      })

      it("gives commands only flags that they have", async () => {
        for (const container of allPodsOf(objects).flatMap(containersOf)) {
          if (container.name === "before") continue
          const command = container.args.filter((arg) => !arg.startsWith("--")).join(" ")
          const known = await flagsOf(command)
          for (const arg of container.args.filter((arg) => arg.startsWith("--"))) {
            assert.include(known, arg.split("=", 1)[0], `${command} in ${container.name}`)
          }
        }
      })

      it("restores nodes after uninstall, whatever they are to the mirrors now, and leaves nothing", () => {
        const hooks = hooksOf(objects, "post-delete")
        const { containerdMirrorAdd = true, persistence } = rendering.values?.spegel ?? {}
        const { enabled = true, existingSecret } = rendering.values?.clusterKey ?? {}
        const removesKey = enabled && existingSecret === undefined
        const restores = containerdMirrorAdd || persistence?.enabled !== false
        if (!restores && !removesKey) return assert.lengthOf(hooks, 0)
        assert.deepStrictEqual(hooks.map(({ kind }) => kind), [
          "ServiceAccount",
          "Role",
          "RoleBinding",
          ...(restores ? ["DaemonSet"] : []),
          "Job"
        ])
        for (const { kind, metadata } of hooks) {
          const { annotations = {} } = metadata
          assert.strictEqual(
            annotations["helm.sh/hook-delete-policy"],
            "before-hook-creation,hook-succeeded,hook-failed"
          )
          assert.strictEqual(
            annotations["helm.sh/hook-weight"],
            kind === "Job" ? "1" : kind === "DaemonSet" ? "0" : "-1"
          )
        }
        const [mirror] = podsOf(objects)
        const [cleanup, wait] = [podsOf(hooks).at(-2), podsOf(hooks).at(-1)]
        if (!restores) {
          assert.deepStrictEqual(containersOf(wait ?? assert.fail()).map(({ name }) => name), ["cluster-key"])
          return
        }
        for (const field of ["imagePullSecrets", "priorityClassName"]) {
          assert.deepStrictEqual(cleanup?.spec[field], mirror?.spec[field], field)
        }
        // Whatever keeps mirrors from a node now: a selector, an affinity, a taint.
        assert.deepStrictEqual(cleanup?.spec.nodeSelector, { "kubernetes.io/os": "linux" })
        assert.isUndefined(cleanup?.spec.affinity)
        const { tolerations = [{ operator: "Exists" }] } = rendering.values?.cleanup ?? {}
        assert.deepStrictEqual(cleanup?.spec.tolerations, tolerations)
        const [, role, binding, daemonSet, job] = hooks
        assert.deepStrictEqual(role?.["rules"], [
          {
            apiGroups: ["apps"],
            resources: ["daemonsets"],
            resourceNames: [daemonSet?.metadata.name, ...(removesKey ? [mirror?.name] : [])],
            verbs: ["get"]
          },
          ...(removesKey
            ? [{
              apiGroups: [""],
              resources: ["secrets"],
              resourceNames: [`${mirror?.name}-cluster-key`],
              verbs: ["delete"]
            }]
            : []),
          { apiGroups: [""], resources: ["pods", "events"], verbs: ["list"] }
        ])
        assert.strictEqual(binding?.["subjects"][0].name, wait?.spec.serviceAccountName)
        const container = containersOf(wait ?? assert.fail()).at(-1) ?? assert.fail()
        assert.deepStrictEqual(flag(container, "daemonset"), [`mirrors/${daemonSet?.metadata.name}`])
        assert.deepStrictEqual(flag(container, "mirror-daemonset"), [mirror?.name])
        // It says what is left before Kubernetes ends it, and helm waits for 5 minutes.
        const seconds = Number.parseInt(flag(container, "timeout")[0] ?? "", 10)
        assert.isBelow(seconds, job?.["spec"].activeDeadlineSeconds)
        assert.isBelow(job?.["spec"].activeDeadlineSeconds, 300)
        assert.isAbove(job?.["spec"].ttlSecondsAfterFinished, 0)
        // Helm prints which nodes are restored, and which are not.
        assert.strictEqual(
          job?.metadata.annotations?.["helm.sh/hook-output-log-policy"],
          "hook-succeeded,hook-failed"
        )
        // A pod that tolerates everything would be given to a node that is down.
        for (const { key } of wait?.spec.tolerations ?? []) assert.isString(key)
        const directories = (pod: { readonly spec: { readonly volumes: ReadonlyArray<{ hostPath?: unknown }> } }) =>
          pod.spec.volumes.flatMap(({ hostPath }) => hostPath ?? [])
        const identity = { path: "/var/lib/spegel", type: "DirectoryOrCreate" }
        const cleaned = directories(cleanup as never)
        for (const hostPath of cleaned) assert.deepInclude([...directories(mirror as never), identity], hostPath)
        // An identity may have been kept before; hosts.toml files that others write are theirs.
        assert.deepInclude(cleaned, identity)
        assert.lengthOf(cleaned, containerdMirrorAdd ? 2 : 1)
      })

      it("has a port that stays open when a mirror stops, and time enough for what runs", () => {
        const pod = podsOf(objects)[0] ?? assert.fail()
        const registry = containersOf(pod).at(-1) ?? assert.fail()
        const { delaySeconds = 5, graceSeconds = 20 } = rendering.values?.shutdown ?? {}
        assert.deepStrictEqual(flag(registry, "shutdown-delay"), [`${delaySeconds}s`])
        assert.deepStrictEqual(flag(registry, "shutdown-grace"), [`${graceSeconds}s`])
        assert.isAbove(pod.spec.terminationGracePeriodSeconds, delaySeconds + graceSeconds)
        assert.strictEqual(pod.annotations?.["kubectl.kubernetes.io/default-container"], "registry")
      })

      it("says in three commands whether it works, and what its namespace must allow", async () => {
        const text = await HelmChart.notes(rendering)
        const { labels, name } = podsOf(objects)[0] ?? assert.fail()
        const selector = ["instance", "component"].map((key) => `app.kubernetes.io/${key}`).map((key) =>
          `${key}=${labels[key]}`
        ).join()
        const { port } = find(objects, "Service", name)["spec"].ports[0]
        assert.deepStrictEqual(text.match(/^ {2}(?:kubectl|helm) .*$/gm), [
          `  kubectl --namespace mirrors rollout status daemonset/${name}`,
          `  helm --namespace mirrors test ${rendering.release ?? "spegel"}`,
          `  kubectl --namespace mirrors port-forward $(kubectl --namespace mirrors get pod --output name --selector ${selector} --field-selector spec.nodeName=NODE) ${port}`,
          "  kubectl label namespace mirrors pod-security.kubernetes.io/enforce=privileged",
          ...(rendering.values?.peerAuth === "prefer"
            ? ["  helm --namespace mirrors upgrade spegel CHART --reuse-values --set peerAuth=require"]
            : [])
        ])
        const pages = rendering.values?.spegel?.["debugWebEnabled"] ?? true
        assert.include(text, `http://127.0.0.1:${port}/${pages ? "debug/web/" : "metrics"}`)
      })

      it("can be tested by helm", () => {
        const [test, ...others] = hooksOf(objects, "test")
        assert.lengthOf(others, 0)
        const [container] = containersOf(test as never)
        const urls = flag(container ?? assert.fail(), "url")
        const { port } = find(objects, "Service", podsOf(objects)[0]?.name ?? "")["spec"].ports[0]
        assert.include(urls, `http://${podsOf(objects)[0]?.name}:${port}/metrics`)
        assert.isTrue(
          urls.every((url) => /^http:\/\/(?:\$\(NODE_IP\):30\d+\/readyz|[a-z-]+:\d+\/metrics)$/.test(url)),
          urls.join()
        )
      })
    })
  }

  const mirror = (objects: Objects) => podsOf(objects)[0] ?? assert.fail()
  const containerOf = (objects: Objects, name: string) =>
    containersOf(mirror(objects)).find((container) => container.name === name) ?? assert.fail(`no container ${name}`)
  const ports = (objects: Objects) =>
    containerOf(objects, "registry")["ports"] as ReadonlyArray<{ readonly name: string; readonly hostPort?: number }>

  it("prefers the pod of the same node by Kubernetes, and before 1.34 by a port of the node", async () => {
    const registryOf = (objects: Objects) => find(objects, "Service", "spegel-registry")["spec"]
    const preferred = await HelmChart.render()
    assert.strictEqual(registryOf(preferred).trafficDistribution, "PreferSameNode")
    assert.deepStrictEqual(flag(containerOf(preferred, "configuration"), "mirror-targets"), ["http://$(NODE_IP):30020"])
    assert.deepStrictEqual(ports(preferred).map(({ hostPort }) => hostPort), [undefined, undefined, undefined])
    const old = await HelmChart.render({ kubernetes: "1.33.7" })
    assert.notProperty(registryOf(old), "trafficDistribution")
    assert.deepStrictEqual(
      flag(containerOf(old, "configuration"), "mirror-targets"),
      ["http://$(NODE_IP):30021", "http://$(NODE_IP):30020"]
    )
    assert.deepStrictEqual(ports(old).map(({ hostPort }) => hostPort), [30021, undefined, undefined])
    for (const kubernetes of ["1.33.7", "1.35.0"]) {
      for (const chosen of [true, false]) {
        const values = { service: { registry: { usePreferSameNodeTrafficDistribution: chosen } } }
        const objects = await HelmChart.render({ kubernetes, values })
        assert.strictEqual("trafficDistribution" in registryOf(objects), chosen)
      }
    }
    const values = { service: { registry: { hostPort: 30020 } } }
    const refused = await HelmChart.command("template", { kubernetes: "1.33.7", values })
    assert.include(refused.stderr, "service.registry.hostPort and service.registry.nodePort must differ")
  })

  it("starts a new mirror before the old one stops, where two can be on one node, or as it is told", async () => {
    const strategyOf = async (rendering: HelmChart.Rendering) =>
      find(await HelmChart.render(rendering), "DaemonSet", "spegel")["spec"].updateStrategy
    const rolling = (maxSurge: number, maxUnavailable: number) => ({
      type: "RollingUpdate",
      rollingUpdate: { maxSurge, maxUnavailable }
    })
    assert.deepStrictEqual(await strategyOf({ kubernetes: "1.34.0" }), rolling(1, 0))
    // Two pods cannot have one hostPort.
    assert.deepStrictEqual(await strategyOf({ kubernetes: "1.33.7" }), rolling(0, 1))
    const updateStrategy = { type: "OnDelete" }
    assert.deepStrictEqual(await strategyOf({ values: { updateStrategy } }), updateStrategy)
  })

  it("mounts the directory of containerd's socket, but no directory that others share", async () => {
    const mountOf = async (containerdSock: string) => {
      const objects = await HelmChart.render({ values: { spegel: { containerdSock } } })
      const { hostPath } = mirror(objects).spec.volumes.find(({ name }: { name: string }) => name === "containerd-sock")
      const [mount] = containerOf(objects, "registry")["volumeMounts"]
      assert.strictEqual(mount.mountPath, hostPath.path)
      assert.isTrue(mount.readOnly)
      return hostPath
    }
    assert.deepStrictEqual(await mountOf("/run/containerd/containerd.sock"), {
      path: "/run/containerd",
      type: "Directory"
    })
    assert.deepStrictEqual(await mountOf("/run/c.sock"), { path: "/run/c.sock", type: "Socket" })
  })

  it("mounts the directory of containerd's configuration, read-only, where it is named", async () => {
    const settingsOf = async (containerdConfigPath: string) => {
      const objects = await HelmChart.render({ values: { spegel: { containerdConfigPath } } })
      const isSettings = ({ name }: { name: string }) => name === "containerd-settings"
      const registry = containerOf(objects, "registry")
      return {
        flag: flag(registry, "containerd-config"),
        mounts: registry["volumeMounts"].filter(isSettings),
        volumes: mirror(objects).spec.volumes.filter(isSettings)
      }
    }
    assert.deepStrictEqual(await settingsOf(""), { flag: [], mounts: [], volumes: [] })
    assert.deepStrictEqual(await settingsOf("/etc/containerd/config.toml"), {
      flag: ["/etc/containerd/config.toml"],
      mounts: [{ name: "containerd-settings", mountPath: "/etc/containerd", readOnly: true }],
      volumes: [{ name: "containerd-settings", hostPath: { path: "/etc/containerd", type: "DirectoryOrCreate" } }]
    })
  })

  it("does what former values of Go Spegel's chart say", async () => {
    const objects = await HelmChart.render({ values: GoSpegelValues.former })
    const registries = ["https://docker.io", "https://ghcr.io"]
    const configuration = containerOf(objects, "configuration")
    const registry = containerOf(objects, "registry")
    for (const container of [configuration, registry]) {
      assert.deepStrictEqual(flag(container, "mirrored-registries"), registries)
    }
    assert.include(flag(configuration, "additional-mirror-targets"), "http://10.0.0.9:5000")
    assert.deepStrictEqual(flag(configuration, "prepend-existing"), ["true"])
    assert.deepStrictEqual(flag(registry, "resolve-latest-tag"), ["false"])
    assert.deepStrictEqual(flag(registry, "kubeconfig-path"), ["/etc/kubeconfig"])
    const dashboard = objects.find(({ metadata }) => metadata.name.endsWith("-dashboard"))
    assert.strictEqual(dashboard?.metadata.labels["dashboard"], "yes")
  })

  it("names the image by digest where one is set, else by tag, else by the chart's version", async () => {
    const imageOf = async (image: object) =>
      containerOf(await HelmChart.render({ values: { image } }), "registry").image
    assert.strictEqual(await imageOf({}), `ghcr.io/spegel-ts/spegel:v${version}`)
    assert.strictEqual(await imageOf({ repository: "r.example/s", tag: "v9" }), "r.example/s:v9")
    const digest = `sha256:${"b".repeat(64)}`
    assert.strictEqual(await imageOf({ repository: "r.example/s", tag: "v9", digest }), `r.example/s@${digest}`)
  })

  it("bounds the memory of bodies where it is told, in whole bytes", async () => {
    const memoryOf = async (spegel: { readonly maxBodyMemory?: number | string }) =>
      flag(containerOf(await HelmChart.render({ values: { spegel } }), "registry"), "max-body-memory")
    assert.deepStrictEqual(await memoryOf({}), [])
    assert.deepStrictEqual(await memoryOf({ maxBodyMemory: "" }), [])
    // Helm would print these as 8.388608e+06 and 1.099511627776e+12.
    for (const bytes of [8_388_608, 1_099_511_627_776]) {
      assert.deepStrictEqual(await memoryOf({ maxBodyMemory: bytes }), [String(bytes)])
    }
  })

  it("has a memory limit for what the mirror's defaults allow, as values.yaml says", async () => {
    const { limits } = containerOf(await HelmChart.render(), "registry")["resources"]
    const [, defaultBytes] = /--max-body-memory[^]*?default\s+(\d+)/.exec(await helpOf("registry")) ?? []
    const mebibytes = Number(defaultBytes) / 2 ** 20
    const described = ChartValues.read(await read("values.yaml")).find(({ key }) => key === "spegel.maxBodyMemory")
    assert.include(described?.description, `${mebibytes} MiB. The memory limit in`)
    assert.strictEqual(limits.memory, `${mebibytes + 160}Mi`)
  })

  it("tells of each flag of the mirror that has no value of its own", async () => {
    const renderings = await Promise.all(
      Object.values(table).map(({ values, ...rendering }) =>
        HelmChart.render({ ...rendering, values: { ...values, spegel: { ...values?.spegel, extraArgs: [] } } })
      )
    )
    const set = new Set(
      renderings.flatMap(allPodsOf).flatMap(containersOf).flatMap(({ args }) => args ?? []).map((arg) =>
        arg.split("=", 1)[0]
      )
    )
    const readme = await read("README.md")
    const [section = ""] = /^## Flags without a value$[^]*?(?=^## )/m.exec(readme) ?? []
    const common = new Set(await flagsOf("version"))
    const left = [...new Set(await flagsOf("registry"))].filter((flag) => !set.has(flag) && !common.has(flag))
    assert.isAbove(left.length, 10)
    for (const flag of left) assert.include(section, `\`${flag}\``)
  })

  it("sends traces where a collector is named", async () => {
    const environmentOf = async (otel: object) => {
      const environment = containerOf(await HelmChart.render({ values: { spegel: { otel } } }), "registry")["env"] ?? []
      const otelVariables = environment.filter(({ name }: { readonly name: string }) => name.startsWith("OTEL_"))
      return Object.fromEntries(otelVariables.map(({ name, value }: Record<string, string>) => [name, value]))
    }
    const common = { OTEL_SERVICE_NAME: "spegel" }
    assert.deepStrictEqual(await environmentOf({ sampler: "always_on" }), {})
    assert.deepStrictEqual(await environmentOf({ endpoint: "https://c:4318", sampler: "always_on" }), {
      ...common,
      OTEL_EXPORTER_OTLP_ENDPOINT: "https://c:4318",
      OTEL_TRACES_SAMPLER: "always_on"
    })
    for (const sampler of [0.25, "0.25"]) {
      assert.deepStrictEqual(await environmentOf({ endpoint: "c:4318", insecure: true, sampler }), {
        ...common,
        OTEL_EXPORTER_OTLP_ENDPOINT: "http://c:4318",
        OTEL_TRACES_SAMPLER: "parentbased_traceidratio",
        OTEL_TRACES_SAMPLER_ARG: "0.25"
      })
    }
    assert.deepStrictEqual(await environmentOf({ endpoint: "c:4318" }), {
      ...common,
      OTEL_EXPORTER_OTLP_ENDPOINT: "https://c:4318"
    })
  })

  for (
    const [name, key, values] of [
      ["a key that is none", "mirrorRegistries", { spegel: { mirrorRegistries: ["https://docker.io"] } }],
      ["a key in the wrong place", "nodePort", { service: { nodePort: 30020 } }],
      ["a section that is none", "spegal", { spegal: {} }],
      ["a key of another case", "pullpolicy", { image: { pullpolicy: "Always" } }],
      ["text for a switch", "enabled", { serviceMonitor: { enabled: "yes" } }],
      ["a number as text", "nodePort", { service: { registry: { nodePort: "30020" } } }],
      ["a port that is none", "port", { service: { router: { port: 70_000 } } }],
      ["a duration without a unit", "mirrorResolveTimeout", { spegel: { mirrorResolveTimeout: "20" } }],
      ["a level that is none", "logLevel", { spegel: { logLevel: "TRACE" } }],
      ["a bootstrap kind that is none", "bootstrapKinds", { spegel: { bootstrapKinds: ["dsn"] } }],
      ["a relative path", "containerdSock", { spegel: { containerdSock: "run/c.sock" } }],
      ["text for a list", "mirroredRegistries", { spegel: { mirroredRegistries: "https://docker.io" } }],
      ["a digest that is none", "digest", { image: { digest: "v0.1.0" } }],
      ["a further flag without dashes", "extraArgs", { spegel: { extraArgs: ["peer-cidrs=10.0.0.0/8"] } }],
      ["tags of the mirror and none at once", "tagResolution", {
        spegel: { resolveTags: false, tagResolution: "mirror" }
      }],
      ["a registry with a path", "mirroredRegistries", {
        spegel: { mirroredRegistries: ["https://docker.io/library"] }
      }],
      ["a mirror that is no URL", "additionalMirrorTargets", {
        spegel: { additionalMirrorTargets: ["10.0.0.9:5000"] }
      }],
      ["a way to verify that there is not", "mirrorVerify", { spegel: { mirrorVerify: "never" } }],
      ["memory with a unit", "maxBodyMemory", { spegel: { maxBodyMemory: "96Mi" } }],
      ["memory that is too little", "maxBodyMemory", { spegel: { maxBodyMemory: 100_000 } }],
      ["a part of a second", "graceSeconds", { shutdown: { graceSeconds: 0.5 } }],
      ["tags of upstream first for all registries", "mirroredRegistries", {
        spegel: { tagResolution: "upstream-first" }
      }]
    ] as const
  ) {
    it(`refuses ${name}, and names it`, async () => {
      const { code, stderr } = await HelmChart.command("template", { values })
      assert.notStrictEqual(code, 0)
      assert.include(stderr, key)
    })
  }

  it("waits for a start with the program that the image has", async () => {
    const { entrypoint } = await Effect.runPromise(ImageDefinition.load)
    const { startupProbe } = containerOf(await HelmChart.render(), "registry")
    const [program, main, ...args] = startupProbe.exec.command
    assert.deepStrictEqual([program, main], [entrypoint[0], entrypoint.at(-1)])
    assert.deepStrictEqual(args, ["probe", "--url=http://127.0.0.1:5000/readyz", "--timeout=50s"])
    // The probe tells why before the kubelet ends it.
    assert.isAbove(startupProbe.timeoutSeconds, 50)
    for (const flag of ["--url", "--timeout"]) assert.include(await flagsOf("probe"), flag)
  })

  it("takes registries as hosts and as URLs, and mirrors at addresses of both families", async () => {
    const spegel = {
      mirroredRegistries: ["docker.io", "registry.example:5000", "https://ghcr.io", "http://127.0.0.1:5000/"],
      additionalMirrorTargets: ["http://10.0.0.9:5000", "https://mirror.example/", "http://[fd00::7]:30020"],
      resolveTags: false,
      tagResolution: "never"
    }
    const configuration = containerOf(await HelmChart.render({ values: { spegel } }), "configuration")
    assert.deepStrictEqual(flag(configuration, "mirrored-registries"), spegel.mirroredRegistries)
    assert.includeMembers(flag(configuration, "additional-mirror-targets"), spegel.additionalMirrorTargets)
  })

  it("takes tags of upstream first where registries are named, by either key", async () => {
    for (const key of ["mirroredRegistries", "registries"]) {
      const values = { spegel: { tagResolution: "upstream-first", [key]: ["https://docker.io"] } }
      const configuration = containerOf(await HelmChart.render({ values }), "configuration")
      assert.deepStrictEqual(flag(configuration, "tag-resolution"), ["upstream-first"])
    }
  })

  it("has a schema for exactly the keys that the README tells of", async () => {
    interface Schema {
      readonly properties?: Readonly<Record<string, Schema>>
      readonly description?: string
    }
    const keys = ({ properties = {} }: Schema, path: ReadonlyArray<string> = []): ReadonlyArray<string> =>
      Object.entries(properties).flatMap(([key, schema]) => {
        // What has a description is taken and does nothing here.
        if (schema.description !== undefined) return []
        return schema.properties === undefined ? [[...path, key].join(".")] : keys(schema, [...path, key])
      })
    const schema = JSON.parse(await read("values.schema.json")) as Schema
    const described = ChartValues.read(await read("values.yaml")).map(({ key }) => key)
    assert.sameMembers([...keys(schema)], described)
  })

  it("has the version of everything else", async () => {
    const chart = parse(await read("Chart.yaml")) as { readonly version: string; readonly appVersion: string }
    assert.strictEqual(chart.version, version)
    assert.strictEqual(chart.appVersion, `v${version}`)
    for await (const path of glob("{.,packages/*,apps/*}/package.json", { cwd: repository })) {
      const manifest = JSON.parse(await readFile(join(repository, path), "utf8")) as { readonly version: string }
      assert.strictEqual(manifest.version, version, path)
    }
  })

  it("has a dashboard and alerts over metrics that exist", async () => {
    const sources: Array<string> = []
    for await (const path of glob("{packages,apps}/*/src/**/*.ts", { cwd: repository })) {
      sources.push(await readFile(join(repository, path), "utf8"))
    }
    const ours = new Set(sources.join("\n").match(/(?<=")(?:spegel|http)_[a-z_]+(?=")/g))
    const { collectDefaultMetrics, Registry } = await import("prom-client")
    const registry = new Registry()
    collectDefaultMetrics({ register: registry })
    const process = new Set(registry.getMetricsAsArray().map(({ name }) => name))
    registry.clear()
    const files = await Promise.all([read("dashboards", "spegel.json"), read("alerts", "spegel.yaml")])
    const used = new Set(files.join().match(/(?:spegel|http|process|nodejs)_[a-z0-9_]+/g))
    assert.isAtLeast(used.size, 10)
    for (const name of used) {
      const metric = name.replace(/_(?:bucket|sum|count)$/, "")
      assert.isTrue(ours.has(metric) || process.has(metric), name)
    }
  })
})
