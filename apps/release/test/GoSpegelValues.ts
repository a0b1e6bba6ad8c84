/** The values that charts of Go Spegel document, up to 0.6, with something that an installation may have set. */
export const current = {
  image: { repository: "r.example/spegel", pullPolicy: "Always", tag: "v9", digest: "" },
  imagePullSecrets: [{ name: "pull" }],
  nameOverride: "mirror",
  fullnameOverride: "mirror",
  namespaceOverride: "mirrors",
  serviceAccount: { annotations: { a: "b" }, name: "mirror" },
  daemonsetAnnotations: { a: "b" },
  podAnnotations: { a: "b" },
  podSecurityContext: { fsGroup: 2000 },
  revisionHistoryLimit: 3,
  securityContext: { readOnlyRootFilesystem: true },
  service: {
    registry: {
      nodeIp: "10.0.0.1",
      port: 5050,
      nodePort: 30_022,
      hostPort: 30_023,
      topologyAwareHintsEnabled: true,
      annotations: { a: "b" }
    },
    router: { port: 5051 },
    metrics: { port: 9091, annotations: { a: "b" } },
    bootstrap: { annotations: { a: "b" } },
    cleanup: { port: 8081, annotations: { a: "b" } }
  },
  resources: { requests: { memory: "128Mi" }, limits: { memory: "128Mi" } },
  nodeSelector: { "kubernetes.io/os": "linux" },
  updateStrategy: { type: "RollingUpdate", rollingUpdate: { maxSurge: 0, maxUnavailable: 1 } },
  tolerations: [{ effect: "NoExecute", operator: "Exists" }],
  affinity: { nodeAffinity: {} },
  commonLabels: { a: "b" },
  clusterDomain: "cluster.example.",
  serviceMonitor: {
    enabled: true,
    interval: "1m",
    scrapeTimeout: "10s",
    labels: { a: "b" },
    relabelings: [{ action: "labeldrop" }],
    metricRelabelings: [{ action: "labeldrop" }]
  },
  grafanaDashboard: {
    enabled: true,
    mode: "GrafanaOperator",
    labels: { grafana_dashboard: "1" },
    annotations: { grafana_folder: "Spegel" },
    grafanaOperator: {
      allowCrossNamespaceImport: false,
      folder: "Spegel",
      resyncPeriod: "10m",
      matchLabels: { dashboards: "grafana" }
    }
  },
  priorityClassName: "system-node-critical",
  basicAuthSecretName: "credentials",
  spegel: {
    logLevel: "debug",
    persistence: { enabled: true, path: "/var/lib/spegel", hostPath: "/var/lib/spegel" },
    mirroredRegistries: ["https://docker.io", "https://ghcr.io"],
    additionalMirrorTargets: ["http://10.0.0.9:5000"],
    mirrorResolveRetries: 2,
    mirrorResolveTimeout: ".5s",
    containerdSock: "/run/containerd/containerd.sock",
    containerdNamespace: "k8s.io",
    containerdRegistryConfigPath: "/etc/containerd/certs.d",
    containerdContentPath: "/var/lib/containerd/io.containerd.content.v1.content",
    containerdMirrorAdd: true,
    resolveTags: true,
    registryFilters: [".*:latest$", String.raw`^docker\.io/.{3,}`],
    prependExisting: true,
    debugWebEnabled: true
  },
  verticalPodAutoscaler: {
    enabled: true,
    recommenders: [{ name: "custom" }],
    controlledResources: ["memory"],
    controlledValues: "RequestsOnly",
    maxAllowed: { memory: "256Mi" },
    minAllowed: { memory: "64Mi" },
    updatePolicy: { minReplicas: 1, updateMode: "Initial" }
  },
  livenessProbe: { enabled: true },
  extraVolumes: [{ name: "extra", emptyDir: {} }],
  extraInitContainers: [{ name: "before", image: "busybox", volumeMounts: [{ name: "extra", mountPath: "/extra" }] }]
}

/** What earlier charts called otherwise, or had and have no more. */
export const former = {
  grafanaDashboard: { enabled: true, sidecarLabel: "dashboard", sidecarLabelValue: "yes" },
  spegel: {
    registries: ["https://docker.io", "https://ghcr.io"],
    additionalMirrorRegistries: ["http://10.0.0.9:5000"],
    appendMirrors: true,
    resolveLatestTag: false,
    blobSpeed: "10MBps",
    kubeconfigPath: "/etc/kubeconfig",
    bootstrapKinds: ["kubernetes"]
  }
}
